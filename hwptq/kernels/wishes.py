"""In which layout the kernel of an operator wants to read its activations, and whether it can write any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.dense import Dense
from hwptq.operators.layers import IntegerLayer
from hwptq.operators.lookup import Lookup
from hwptq.operators.max_pool import MaxPool
from hwptq.operators.quantize import Quantize
from hwptq.operators.resize import Resize
from hwptq.targets.schema import Descriptor
from hwptq.targets.templates.base import Kernel
from hwptq.targets.templates.depthwise import DepthwiseKernel
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.targets.templates.dot_product import DotProductKernel
from hwptq.targets.templates.matrix_multiply import MatrixMultiplyKernel
from hwptq.targets.templates.mma import MmaKernel
from hwptq.targets.templates.vector import VectorKernel
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.kernel import TensorType
from hwptq.tir.layout import PLAIN, Layout, common

from . import dot_product, matrix_multiply, vector
from .constant_frame import inside, without_frame
from .convolution import describe, wanted_padding
from .depthwise_buffer import writes_interleaved
from .depthwise_dot import wanted_layout as wanted_by_depthwise
from .register_tile import Mac
from .select import kernel_of
from .tiled import interleaved_layout, interleaves, wanted_layout


@dataclass(frozen=True)
class Wish:
    """A reader of a tensor takes `layout`, or if it is not `exact`, any that serves it; None: any in rows."""

    layout: Layout | None
    exact: bool = False


#: Of a reader that knows nothing of layouts.
AS_IT_IS = Wish(PLAIN, exact=True)
ANY = Wish(None)


def wishes(
    op: Operator,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
) -> list[Wish]:
    """The wish for each activation of `op`, and for those of the followers of a layer behind them."""
    if isinstance(op, Lookup) and _in_rows(target):
        return [ANY]
    kernel = _kernel(op, constants, target)
    if kernel is None or not isinstance(op, IntegerLayer):
        return [AS_IT_IS for _ in activations]
    alone = without_frame(op, constants)
    if alone is not None:
        assert isinstance(op, Conv2d)
        return wishes(alone, activations, constants, inside(op, out), target)
    x, weight = activations[0], constants[0].shape
    mac = _mac(kernel)
    if mac is not None:
        interleaved = _interleaved(op, x, weight, out, mac)
        exact = interleaved or _widened(x, mac)
        others = [AS_IT_IS if exact else ANY for _ in activations[1:]]
        if interleaved and wanted_padding(op).empty:
            return [Wish(interleaved_layout(mac), exact=True), *others]
        return [Wish(wanted_layout(op, x, weight, out, mac), exact), *others]
    assert isinstance(op, Conv2d)
    if isinstance(kernel, DepthwiseDotKernel):
        return [Wish(wanted_by_depthwise(op, x, weight, out, kernel, target.elementwise.masked))]
    return [Wish(Layout(wanted_padding(op)))]


def writes(
    op: Operator,
    activations: Sequence[TensorType],
    constants: Sequence[np.ndarray],
    out: TensorType,
    target: Descriptor,
    layout: Layout,
) -> bool:
    """Whether the kernel of `op` can write its result in `layout`."""
    if isinstance(op, MaxPool | Resize) or (isinstance(op, Lookup) and _in_rows(target)):
        return layout.rows == 1
    if isinstance(op, Quantize) and activations[0].shape != out.shape:
        return layout.rows == 1
    kernel = _kernel(op, constants, target)
    if layout == PLAIN or kernel is None or not isinstance(op, Conv2d | Dense):
        return layout == PLAIN
    if without_frame(op, constants) is not None:
        return layout.rows == 1
    x, weight = activations[0], constants[0].shape
    if layout.rows > 1:
        if not isinstance(kernel, DepthwiseDotKernel) or not isinstance(op, Conv2d):
            return False
        return writes_interleaved(op, x, weight, out, kernel, layout)
    mac = _mac(kernel)
    return mac is None or not (_widened(x, mac) or _interleaved(op, x, weight, out, mac))


def takes_followers(op: Operator, constants: Sequence[np.ndarray], target: Descriptor) -> bool:
    """Whether the kernel of `op` can apply other operators to its results before it stores them."""
    kernel = _kernel(op, constants, target)
    if kernel is None or without_frame(op, constants) is not None:
        return False
    return isinstance(op, Conv2d | Dense) and _mac(kernel) is not None


def agreed(wishes: Sequence[Wish]) -> Layout:
    """The layout in which to store a tensor for all its readers; the plain one where they do not agree."""
    layouts = [wish.layout for wish in wishes if wish.layout is not None]
    layout = common(layouts) if layouts else None
    if layout is None or any(wish.exact and wish.layout != layout for wish in wishes):
        return PLAIN
    return PLAIN if layout.rows > 1 and len(layouts) < len(wishes) else layout


def _in_rows(target: Descriptor) -> bool:
    """Whether a Lookup reads and writes any layout in rows; where no kernel asks for one, it need not."""
    return bool(target.tvm["kind"] == "llvm") and not target.memory.scratchpad


def _kernel(op: Operator, constants: Sequence[np.ndarray], target: Descriptor) -> Kernel | None:
    """The kernel of `op`; None where it reads and writes plain tensors only."""
    kernel = kernel_of(op, constants, target)
    grouped = op.rule(constants) == "conv2d" and isinstance(op, Conv2d) and op.groups > 1
    plain = grouped or isinstance(kernel, WgmmaKernel | MmaKernel) or target.memory.scratchpad
    return None if plain else kernel


def _mac(kernel: Kernel) -> Mac | None:
    """The instruction of kernels that work with a register tile."""
    match kernel:
        case DotProductKernel():
            return dot_product.mac_of(kernel)
        case MatrixMultiplyKernel():
            return matrix_multiply.mac_of(kernel)
        case VectorKernel():
            return vector.mac_of(kernel)
    assert isinstance(kernel, DepthwiseKernel | DepthwiseDotKernel)
    return None


def _widened(x: TensorType, mac: Mac) -> bool:
    """Whether channels are filled up in a step of its own, which knows nothing of layouts."""
    return mac.aligned and x.shape[-1] % mac.k != 0


def _interleaved(op: IntegerLayer, x: TensorType, weight: Sequence[int], out: TensorType, mac: Mac) -> bool:
    """Whether the kernel reads interleaved pixels."""
    layout = Layout(wanted_padding(op))
    plain = TensorType(x.shape, x.dtype, layout)
    return interleaves(mac, describe(op, plain, weight, out))
