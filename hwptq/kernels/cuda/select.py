"""Which CUDA kernels compute an fp8 operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwptq.kernels.builder import TEMPLATE
from hwptq.kernels.kernel import Step, TensorType
from hwptq.quant import fp8_ops as ops
from hwptq.targets.kernel_tables import WgmmaKernel
from hwptq.targets.schema import Descriptor

from .fp8_elementwise import simple_kernel
from .fp8_products import product_steps


def select_fp8(
    op: ops.Fp8Op,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
) -> tuple[Step, ...]:
    """The steps that compute `op`. Raises ValueError where the descriptor names no kernel for a product."""
    rule = target.rule(_kind(op))
    kernel = target.kernels[rule.kernel] if rule and rule.kernel else None
    if isinstance(op, ops.Fp8Conv2d | ops.Fp8Dense | ops.Fp8MatMul) and getattr(op, "groups", 1) == 1:
        if not isinstance(kernel, WgmmaKernel):
            raise ValueError(f"{target.name}: {_kind(op)} in e4m3 needs a kernel of template wgmma")
        return product_steps(op, activations, constants, out, kernel)
    inputs = [*activations, *(TensorType(c.shape, str(c.dtype)) for c in constants)]
    func = simple_kernel(op, inputs, out, {TEMPLATE: "flat"})
    return (Step(func, (*range(len(activations)), *constants), out, f"{op.kind}_flat"),)


def _kind(op: ops.Fp8Op) -> str:
    """The name under which a descriptor lists the operator."""
    if isinstance(op, ops.Fp8Conv2d) and op.groups > 1:
        return "depthwise_conv2d"
    return op.kind.removeprefix("fp8_")
