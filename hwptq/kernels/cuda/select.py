"""Which CUDA kernels compute an operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.operators.conv2d import FloatConv2d
from hwptq.operators.dense import FloatDense
from hwptq.operators.float_operator import FloatOperator
from hwptq.operators.layers import IntegerLayer, LayerToFloat
from hwptq.operators.matmul import FloatMatMul
from hwptq.targets.schema import Descriptor
from hwptq.targets.templates.mma import MmaKernel
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.builder import TEMPLATE
from hwptq.tir.kernel import Step, TensorType

from .concatenate import concatenation
from .fp8_elementwise import fp8_kernel, in_order
from .fp8_products import product_steps
from .int8_elementwise import int8_kernel
from .int8_products import int8_product_steps
from .mma_products import mma_product_steps

_FP8_PRODUCTS = FloatConv2d | FloatDense | FloatMatMul
_INT8_PRODUCTS = IntegerLayer | LayerToFloat


def select_cuda(
    op: Operator,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
) -> tuple[Step, ...]:
    """The steps that compute `op`. Raises ValueError where the descriptor names no kernel for products that
    tensor cores sum.

    Layers that these can't take, or whose products are summed in order, are computed one element a thread.
    """
    rule = target.rule(op.rule(constants))
    kernel = target.kernels[rule.kernel] if rule and rule.kernel else None
    if isinstance(op, _FP8_PRODUCTS) and not in_order(op):
        if isinstance(kernel, MmaKernel) and not isinstance(op, FloatMatMul):
            return mma_product_steps(op, activations, constants, out, kernel)
        if not isinstance(kernel, WgmmaKernel):
            dtype = activations[0].dtype
            raise ValueError(
                f"{target.name}: {op.rule(constants)} in {dtype} needs a kernel of template wgmma or mma"
            )
        return product_steps(op, activations, constants, out, kernel)
    on_tensor_cores = isinstance(op, _INT8_PRODUCTS) and getattr(op, "groups", 1) == 1 and len(constants) > 0
    if on_tensor_cores and isinstance(kernel, MmaKernel):
        return mma_product_steps(op, activations, constants, out, kernel)
    if on_tensor_cores and isinstance(kernel, WgmmaKernel):
        return int8_product_steps(op, activations, constants, out, kernel)
    inputs = [*activations, *(TensorType(c.shape, str(c.dtype)) for c in constants)]
    attributes = {TEMPLATE: "flat"}
    if isinstance(op, FloatOperator):
        func = fp8_kernel(op, inputs, out, attributes)
    else:
        func = int8_kernel(op, inputs, out, attributes)
    return (Step(func, (*range(len(activations)), *constants), out, f"{op.kind}_flat"),)


def select_cuda_concatenate(inputs: Sequence[TensorType], axis: int, out: TensorType) -> tuple[Step, ...]:
    """The step that joins `inputs` along `axis`."""
    func = concatenation(inputs, axis, out, {TEMPLATE: "concatenate"})
    return (Step(func, tuple(range(len(inputs))), out, "concatenate"),)
