"""Which kernel computes an operator on a device: the rule of its descriptor, else the portable code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.operators.avg_pool import AvgPool
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import DenseFloat
from hwptq.operators.float_operator import FloatOperator
from hwptq.operators.matmul import MatMul
from hwptq.operators.quantize import Quantize
from hwptq.targets.schema import Descriptor
from hwptq.targets.templates.base import Kernel
from hwptq.targets.templates.depthwise import DepthwiseKernel
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.targets.templates.dot_product import DotProductKernel
from hwptq.targets.templates.matrix_multiply import MatrixMultiplyKernel
from hwptq.targets.templates.table_lookup import TableLookupKernel
from hwptq.targets.templates.table_permute import TablePermuteKernel
from hwptq.targets.templates.vector import VectorKernel
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.vector_unit import unit_of

from .concatenate import concatenate
from .constant_frame import frame_step, inside, without_frame
from .cuda.select import select_cuda, select_cuda_concatenate
from .depthwise import depthwise
from .depthwise_dot import depthwise_dot
from .dot_product import dot_product
from .epilogue import Follower
from .global_average import averages_in_parts, global_average
from .grouped_convolution import grouped_convolution
from .matmul_dot import fits, matmul_dot
from .matrix_multiply import matrix_multiply
from .quantize_image import quantize_image
from .table_lookup import table_lookup
from .table_permute import table_permute
from .vector import vector

#: The template that makes the kernels of each kind of table.
_TEMPLATES: dict[type, Callable[..., tuple[Step, ...]]] = {
    DotProductKernel: dot_product,
    MatrixMultiplyKernel: matrix_multiply,
    VectorKernel: vector,
    DepthwiseKernel: depthwise,
    DepthwiseDotKernel: depthwise_dot,
    TableLookupKernel: table_lookup,
    TablePermuteKernel: table_permute,
}


def select(
    op: Operator,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
    threads: int = 1,
    tile: int = 0,
    followers: Sequence[Follower] = (),
) -> tuple[Step, ...]:
    """The steps that compute `op` on `target`, large kernels in parts for `threads` threads.

    `tile`: see VectorUnit; all of them compute the same.

    A Quantize from [N,C,H,W] to [N,H,W,C] moves the axes too.

    Its tensors are `activations`, then `constants`, in the order of the operator's docstring; the other
    operands of `followers` come last among the activations. Raises ValueError where the descriptor names a
    kernel that cannot compute the operator.
    """
    if target.tvm.get("kind") == "cuda":
        return select_cuda(op, activations, constants, out, target)
    if isinstance(op, FloatOperator):
        raise ValueError(f"{target.name} computes in integers, and a {op.kind} of the model is in e4m3")
    if isinstance(op, Quantize) and activations[0].shape != out.shape:
        return (quantize_image(op, activations[0], out, unit_of(target, threads)),)
    kind = op.rule(constants)
    kernel = kernel_of(op, constants, target)
    if kernel is None:
        unit = unit_of(target, threads)
        if isinstance(op, AvgPool) and averages_in_parts(op, activations[0], out, unit):
            return global_average(op, activations[0], constants, out, unit)
        return (_portable(op, activations, constants, out, target, threads),)
    if kind not in kernel.serves:
        raise ValueError(f"{target.name}: a {kernel.template} kernel cannot compute {kind}")
    unit = unit_of(target, threads, tile)
    if isinstance(op, MatMul):
        assert isinstance(kernel, DotProductKernel)
        if not fits(activations, kernel, unit):
            return (_portable(op, activations, constants, out, target, threads),)
        return matmul_dot(op, activations, out, kernel, unit)
    alone = without_frame(op, constants)
    if alone is not None and not followers:
        assert isinstance(op, Conv2d)
        steps = select(alone, activations, constants, inside(op, out), target, threads, tile)
        return (*steps, frame_step(op, activations[0].shape[-1], constants, out, unit))
    template = _TEMPLATES[type(kernel)]
    if followers:
        return template(op, activations[0], constants, out, kernel, unit, followers)
    if kind == "conv2d" and isinstance(op, Conv2d) and op.groups > 1:

        def plain(*single: Any) -> tuple[Step, ...]:
            return template(*single, kernel, unit)

        return grouped_convolution(op, activations[0], constants, out, plain, unit)
    return template(op, activations[0], constants, out, kernel, unit)


def kernel_of(op: Operator, constants: Sequence[np.ndarray], target: Descriptor) -> Kernel | None:
    """The kernel that the rules of `target` name for `op`; None for portable code."""
    rule = target.rule(op.rule(constants))
    if rule is None or not rule.kernel or (isinstance(op, DenseFloat) and not rule.float_output):
        return None
    return target.kernels[rule.kernel]


def _portable(
    op: Operator,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
    threads: int,
) -> Step:
    inputs = [*activations, *(TensorType(c.shape, str(c.dtype)) for c in constants)]
    args = (*range(len(activations)), *constants)
    return Step(op.primfunc(inputs, out, unit_of(target, threads)), args, out, f"{op.kind}_portable")


def select_concatenate(
    inputs: Sequence[TensorType], axis: int, out: TensorType, target: Descriptor, threads: int = 1
) -> tuple[Step, ...]:
    """The step that joins `inputs` along `axis`, in parts for `threads` threads."""
    if target.tvm.get("kind") == "cuda":
        return select_cuda_concatenate(inputs, axis, out)
    return (concatenate(inputs, axis, out, unit_of(target, threads)),)
