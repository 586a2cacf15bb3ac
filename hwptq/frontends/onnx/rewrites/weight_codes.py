"""Constants behind a DQ, as layers take them: int8 codes without zero point, a scale for each output channel.

What has no such form stays wide, for the pass FitIntegers. Where no activation is quantized, constants become
real: the layers' own quantization finds codes that fit (quant/symmetric_weights.py), or rounds them anew, and
that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from hwptq.formats import INT8, INT16, Format
from hwptq.notices import Warning
from hwptq.quant.qparams import quantize_weight, weight_scales
from hwptq.quant.symmetric_weights import on_grid

from .code_parts import DEQUANTIZE, QUANTIZE
from .parts import given
from .surroundings import Surroundings, attribute, part_of

#: What hands a weight on to a layer as it is.
_HANDED_ON = ("Identity", "Transpose")
_HALF = 2 ** (INT8.bits - 1)  # the distance of uint8 codes and int8 ones
_SHOWN = 3  # names in a message


@dataclass
class WeightCodes:
    """Writes the constants of a graph anew, and remembers which of them had to be rounded."""

    graph: onnx.GraphProto
    around: Surroundings
    rounded: list[str] = field(default_factory=list)

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes of the graph."""
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.graph.node:
            for i, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, i))
        keeps = any(node.op_type == QUANTIZE for node in self.graph.node)
        return [new for node in self.graph.node for new in (self._constant(node, keeps) or [node])]

    def warnings(self) -> list[Warning]:
        """What is to be rounded, in one line."""
        if not self.rounded:
            return []
        names = ", ".join(self.rounded[:_SHOWN]) + (", …" if len(self.rounded) > _SHOWN else "")
        text = (
            f"the integers of {len(self.rounded)} weights ({names}) have no form with one scale for each "
            f"output channel and no zero point; they are rounded anew, but for blocks that are groups of "
            f"--weight-granularity group"
        )
        return [Warning("weights", "", text)]

    def _constant(self, node: onnx.NodeProto, keeps: bool) -> list[onnx.NodeProto] | None:
        """What stands for a node that gives the values of constant integers."""
        codes = self.around.constant(node.input[0]) if node.op_type == DEQUANTIZE else None
        scale = self.around.constant(node.input[1]) if codes is not None else None
        if codes is None or scale is None or codes.dtype.kind not in "iu":
            return None
        zero = self.around.constant(given(node, 2)) if given(node, 2) else np.zeros((), codes.dtype)
        if zero is None:
            return None
        axis, block = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0))
        centred = codes.astype(np.int32) - spread(zero.astype(np.int32), codes.shape, axis, block)
        scales = spread(scale.astype(np.float32), codes.shape, axis, block)
        channel = self._channel_axis(node.output[0], codes.ndim) if codes.ndim > 1 else None
        if keeps and channel is not None:
            return self._codes(node, centred, scales, channel)
        if keeps and codes.ndim > 1 and scale.size == 1 == zero.size:  # an operand, of one scale
            shift = 0 if _fits(centred) else int(zero.item()) - _HALF
            if _fits(centred + shift):
                return self._dequantized(node, centred + shift, scale.reshape(()), 0, zero=shift)
        if channel is not None and on_grid(centred * scales, channel) is None:
            self.rounded.append(node.name)
        return self._real(node, centred * scales)

    def _codes(
        self, node: onnx.NodeProto, centred: np.ndarray, scales: np.ndarray, axis: int
    ) -> list[onnx.NodeProto]:
        """A DQ of int8 with a scale for each index of `axis`."""
        by_channel = np.moveaxis(scales, axis, 0).reshape(scales.shape[axis], -1)
        scale = np.ascontiguousarray(by_channel[:, 0])
        if not _fits(centred) or np.any(by_channel != by_channel[:, :1]):
            real = centred * scales
            found = on_grid(real, axis)
            if found is not None:
                centred, scale = found.codes, found.scale
            elif _fits(centred, INT16) and not np.any(by_channel != by_channel[:, :1]):
                return self._dequantized(node, centred, scale, axis, INT16)
            else:  # of blocks: as fine as real numbers, for FitIntegers to round
                scale = weight_scales(real, axis, dtype=INT16)
                return self._dequantized(node, quantize_weight(real, scale, axis, INT16), scale, axis, INT16)
        if np.all(scale == scale[0]):
            scale = scale[0].reshape(())
        return self._dequantized(node, centred, scale, axis)

    def _dequantized(
        self,
        node: onnx.NodeProto,
        codes: np.ndarray,
        scale: np.ndarray,
        axis: int,
        held: Format = INT8,
        zero: int = 0,
    ) -> list[onnx.NodeProto]:
        hint = node.output[0]
        arrays = codes.astype(held.held), scale.astype(np.float32), np.full(scale.shape, zero, held.held)
        names = [self.around.add(a, f"{hint}_{part}") for a, part in zip(arrays, _PARTS, strict=True)]
        return [part_of(node, DEQUANTIZE, names, node.output[0], axis=axis)]

    def _real(self, node: onnx.NodeProto, values: np.ndarray) -> list[onnx.NodeProto]:
        name = self.around.add(values.astype(np.float32), f"{node.output[0]}_{_PARTS[0]}")
        return [part_of(node, "Identity", [name], node.output[0])]

    def _channel_axis(self, name: str, rank: int) -> int | None:
        """The axis of a weight that has a scale for each index in all layers that read it; None where
        something else does."""
        found = {self._axis_of(*reader, rank) for reader in self._readers.get(name, [])}
        return found.pop() if len(found) == 1 else None

    def _axis_of(self, node: onnx.NodeProto, index: int, rank: int) -> int | None:
        op = node.op_type
        if op in _HANDED_ON:
            axis = self._channel_axis(node.output[0], rank)
            if op == "Identity" or axis is None:
                return axis
            return int(attribute(node, "perm", list(range(rank))[::-1])[axis])
        match op, index:
            case "Conv", 1:
                return 0
            case "ConvTranspose", 1:
                return self._transposed_axis(node)
            case "Gemm", 1:
                return 0 if attribute(node, "transB", 0) else 1
            case "MatMul", 1:
                return rank - 1
            case "Gather", 0 if rank == 2 and int(attribute(node, "axis", 0)) == 0:
                return 0
        return None

    def _transposed_axis(self, node: onnx.NodeProto) -> int:
        """That of a weight [I,O/G,KH,KW]: the first where each input channel is a group of its own."""
        weight, groups = self.around.constant(self._codes_of(node.input[1])), int(attribute(node, "group", 1))
        return 0 if groups > 1 and weight is not None and len(weight) == groups else 1

    def _codes_of(self, name: str) -> str:
        """The constant that a tensor is made of by a DQ, and by what hands it on."""
        maker = self.around.maker(name)
        while maker is not None and maker.op_type in (*_HANDED_ON, DEQUANTIZE):
            name = maker.input[0]
            maker = self.around.maker(name)
        return name


_PARTS = ("codes", "scale", "zero")


def _fits(codes: np.ndarray, held: Format = INT8) -> bool:
    return bool(codes.min(initial=0) >= held.qmin and codes.max(initial=0) <= held.qmax)


def spread(values: np.ndarray, shape: Sequence[int], axis: int, block: int) -> np.ndarray:
    """A scale or zero point for each element of a tensor: one, one for each index of an axis, or one for each
    block along it."""
    if values.size == 1:
        return np.broadcast_to(values.reshape(()), shape)
    axis %= len(shape)
    if block:
        return np.repeat(values, block, axis).take(range(shape[axis]), axis)
    if values.ndim > 1:
        return np.broadcast_to(values, shape)
    return np.broadcast_to(values.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)
