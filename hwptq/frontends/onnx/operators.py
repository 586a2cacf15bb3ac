"""TVM's ONNX importer with origins, and operators that its own converters hide in opaque functions."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from hwptq.ir.dataflow import constant, shape_of
from hwptq.ir.provenance import Origin, with_origin

from .bounded_indices import clamped
from .recurrent_layers import converters
from .running_sums import running_sum
from .top_k import top_k
from .weights.external_weights import array_of, is_apart

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_SMALLEST = np.finfo(np.float32).tiny
_ALIGNMENT = 64  # bytes; what code of TVM takes for granted


class TracingImporter(onnx_frontend.ONNXGraphImporter):
    """Knows which vars are the outputs of nodes; Clip, Pad and Split become operators that passes can read.

    results: var -> origin, of what has been converted so far. at: the node that is being converted.
    """

    def __init__(self, shapes: dict[str, list[int]], dtypes: dict[str, str]):
        super().__init__(shapes, dtypes, sanitize=False)  # inputs keep the names that the file gives them
        self.results: dict[Any, Origin] = {}
        self.at = ""

    def _parse_array(self, tensor_proto: onnx.TensorProto) -> Any:
        """A constant; one in another file isn't copied, where TVM's code takes its address."""
        if not is_apart(tensor_proto):
            return super()._parse_array(tensor_proto)
        array = array_of(tensor_proto)
        aligned = array.ctypes.data % _ALIGNMENT == 0
        return tvm.runtime.from_dlpack(array) if aligned else tvm.runtime.tensor(array)

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """As TVM does it, but for the operators that are converted here."""
        known = onnx.GraphProto()
        known.node.extend(node for node in graph.node if node.op_type not in {*_CONVERTERS, *_LAYERS})
        super()._check_for_unsupported_ops(known)

    def _convert_operator(self, op_name: str, inputs: Any, attrs: Any, opset: int) -> Any:
        self.at = f"node {attrs['tvm_custom']['name']!r} ({op_name})"
        given = [*inputs, None, None, None, None]
        result = _CONVERTERS[op_name](given, attrs) if op_name in _CONVERTERS else None
        if op_name in _LAYERS:
            result = _LAYERS[op_name](self.bb, inputs, attrs)
        if result is None:
            result = clamped(super()._convert_operator(op_name, inputs, attrs, opset))
        origin, known = Origin(attrs["tvm_custom"]["name"]), [i for i in inputs if isinstance(i, relax.Var)]
        if isinstance(result, relax.Tuple):
            outputs = [replace(origin, output=i) for i in range(len(result.fields))]
            fields = zip(result.fields, outputs, strict=True)
            return relax.Tuple([self._traced(field, output, known) for field, output in fields])
        return self._traced(result, origin, known)

    def _traced(self, expr: Any, origin: Origin, known: Container[Any]) -> Any:
        """The var of an output of a node. known: what the node reads, which it may hand on."""
        if isinstance(expr, relax.Call):
            expr = self.bb.emit(with_origin(expr, origin), name_hint=origin.hint)
        if isinstance(expr, relax.Var) and expr not in known:
            self.results[expr] = origin
        return expr


def known_operators() -> set[str]:
    """The operators that there is a converter for, here or in TVM."""
    return {*_CONVERTERS, *_LAYERS, *onnx_frontend._get_convert_map(), "If", "Loop", "Scan", "Constant"}


def _clip(inputs: Sequence[Any], attrs: Any) -> Any:
    """Clip with constant bounds, given as attributes (before opset 11) or as inputs; else None."""
    bounds = []
    for position, key, unbounded in ((1, "min", -_FLOAT32_MAX), (2, "max", _FLOAT32_MAX)):
        if inputs[position] is None:
            bounds.append(float(attrs.get(key, unbounded)))
            continue
        value = constant(inputs[position])
        if value is None or value.dtype.kind != "f" or np.isnan(value).any():
            return None
        bounds.append(float(np.clip(value.item(), -_FLOAT32_MAX, _FLOAT32_MAX)))
    if str(inputs[0].ty.dtype) != "float32":
        return None
    low, high = bounds
    return (
        relax.op.nn.relu(inputs[0])
        if (low, high) == (0.0, _FLOAT32_MAX)
        else relax.op.clip(inputs[0], low, high)
    )


def _pad(inputs: Sequence[Any], attrs: Any) -> Any:
    """Pad with a constant by constant widths on all axes; else None."""
    mode = attrs.get("mode", "constant")
    if (mode.decode() if isinstance(mode, bytes) else mode) != "constant" or inputs[3] is not None:
        return None
    pads = attrs["pads"] if "pads" in attrs else constant(inputs[1])
    value = attrs.get("value", 0.0) if inputs[2] is None else constant(inputs[2])
    if pads is None or value is None:
        return None
    half = len(pads) // 2
    widths = [int(p) for pair in zip(pads[:half], pads[half:], strict=True) for p in pair]
    return relax.op.nn.pad(inputs[0], widths, "constant", float(np.ravel(value)[0]))


def _dequantize(inputs: Sequence[Any], attrs: Any) -> Any:
    """DequantizeLinear of a weight, kept from being folded into a float constant; else None."""
    x, scale, zero = inputs[:3]
    values = constant(x)
    if values is None or values.ndim < 2 or values.dtype not in (np.int8, np.uint8, np.int16):
        return None
    zero = relax.const(np.zeros((), values.dtype)) if zero is None else zero
    kept = relax.op.builtin.stop_lift_params(x)
    return relax.op.dequantize(kept, scale, zero, axis=int(attrs.get("axis", 1)), out_dtype="float32")


def _lp_normalization(inputs: Sequence[Any], attrs: Any) -> Any:
    """LpNormalization: x / |x| along an axis, in the 1-norm or the 2-norm; 0 where |x| is 0."""
    x, axis = inputs[0], int(attrs.get("axis", -1))
    if int(attrs.get("p", 2)) == 1:
        norm = relax.op.sum(relax.op.abs(x), axis, keepdims=True)
    else:
        norm = relax.op.sqrt(relax.op.sum(relax.op.multiply(x, x), axis, keepdims=True))
    return relax.op.divide(x, relax.op.maximum(norm, relax.const(_SMALLEST)))


def _layer_norm(inputs: Sequence[Any], attrs: Any) -> Any:
    """LayerNormalization over the last axes; mean and deviation, its other outputs, aren't offered."""
    data, scale, bias = inputs[:3]
    shape, rank = shape_of(scale), len(shape_of(data))
    first = int(attrs.get("axis", -1)) % rank
    if first + len(shape) != rank:
        return None
    bias = relax.const(np.zeros(shape, "float32")) if bias is None else bias
    axes = list(range(first, rank))
    out = relax.op.nn.layer_norm(data, scale, bias, axes, float(attrs.get("epsilon", 1e-5)))
    return relax.Tuple([out, relax.const(0.0), relax.const(0.0)])


def _cast(inputs: Sequence[Any], attrs: Any) -> Any:
    """A Cast to the dtype that its input has gives its input; else None."""
    to = onnx.helper.tensor_dtype_to_np_dtype(int(attrs["to"])).name
    return inputs[0] if isinstance(inputs[0], relax.Var) and str(inputs[0].ty.dtype) == to else None


def _group_norm(inputs: Sequence[Any], attrs: Any) -> Any:
    """GroupNormalization, and InstanceNormalization, whose groups are single channels; None where nothing
    lies behind the channels."""
    data, scale, bias = inputs[:3]
    shape = shape_of(data)
    if len(shape) < 3:
        return None
    groups, epsilon = int(attrs.get("num_groups", shape[1])), float(attrs.get("epsilon", 1e-5))
    if groups < 1 or shape[1] % groups:
        raise ValueError(f"{groups} groups of {shape[1]} channels")
    return relax.op.nn.group_norm(data, scale, bias, groups, 1, list(range(2, len(shape))), epsilon)


def _gather(inputs: Sequence[Any], attrs: Any) -> Any:
    """Gather of one known place, such as a class token, as a slice, which has an integer form; else None."""
    x, place = inputs[0], constant(inputs[1])
    if constant(x) is not None or place is None or place.ndim != 0 or str(x.ty.dtype) != "float32":
        return None
    shape = shape_of(x)
    axis = int(attrs.get("axis", 0)) % len(shape)
    begin = int(place) % shape[axis] if -shape[axis] <= int(place) < shape[axis] else None
    if begin is None:
        return None
    return relax.op.squeeze(relax.op.strided_slice(x, [axis], [begin], [begin + 1]), [axis])


def _dropout(inputs: Sequence[Any], attrs: Any) -> Any:
    """Dropout, which in inference gives its input; with its mask asked for, TVM's own converter is used."""
    return inputs[0] if attrs["tvm_custom"]["num_outputs"] == 1 else None


def _split(inputs: Sequence[Any], attrs: Any) -> Any:
    """Split as slices, which have an integer form; None where the sizes of the parts are not constant."""
    x, sizes, axis = inputs[0], inputs[1], int(attrs.get("axis", 0))
    total, count = shape_of(x)[axis], int(attrs["tvm_custom"]["num_outputs"])
    if count == 1:
        return x
    if sizes is not None:
        sizes = constant(sizes)
        if sizes is None:
            return None
    elif "split" in attrs:
        sizes = attrs["split"]
    else:  # the last part is smaller where they can't all be equal
        part = -(-total // count)
        sizes = [min(part, total - first) for first in range(0, total, part)]
    ends = np.cumsum([int(size) for size in sizes]).tolist()
    pairs = zip([0, *ends[:-1]], ends, strict=True)
    return relax.Tuple([relax.op.strided_slice(x, [axis], [begin], [end]) for begin, end in pairs])


def _power(inputs: Sequence[Any], attrs: Any) -> Any:
    """Pow of operands of two dtypes, in that of the base; else None."""
    base, exponent = inputs[:2]
    dtype, other = str(base.ty.dtype), str(exponent.ty.dtype)
    if dtype == other or dtype != "float32":
        return None
    value = constant(exponent)
    same = relax.op.astype(exponent, dtype) if value is None else relax.const(value.astype(dtype))
    return relax.op.power(base, same)


def _tile(inputs: Sequence[Any], attrs: Any) -> Any:
    """Tile by constant counts as an operator that passes can read; else None."""
    counts = constant(inputs[1])
    return None if counts is None else relax.op.tile(inputs[0], [int(count) for count in counts])


def _folded(operator: Callable[[Any, Any], Any]) -> Callable[[Sequence[Any], Any], Any]:
    """Sum, Max and Min as operators on two tensors, one operand after the other."""

    def convert(inputs: Sequence[Any], attrs: Any) -> Any:
        first, *others = [x for x in inputs if x is not None]
        return reduce(operator, others, first)

    return convert


def _equal(inputs: Sequence[Any], attrs: Any) -> Any:
    """Equal of truth values, which LLVM has no comparison of floats for; else None."""
    if str(inputs[0].ty.dtype) != "bool":
        return None
    whole = [relax.op.astype(x, "int32") for x in inputs[:2]]
    return relax.op.equal(*whole)


def _resize(inputs: Sequence[Any], attrs: Any) -> Any:
    """Upsample, and Resize of opset 10, whose second and last input are the scales; else None.

    Pixel i of the output is pixel i / scale of the input, rounded down, or between its neighbours.
    """
    x, second, third, sizes = inputs[:4]
    if "scales" in attrs:  # of opset 7
        second = relax.const(np.float32(attrs["scales"]))
    by_scales = second is not None and third is None and sizes is None
    scales = constant(second if by_scales else third) if by_scales or third is not None else None
    if scales is None or len(scales) != len(shape_of(x)):
        return None
    exact = [float(np.float32(n) * s) for n, s in zip(shape_of(x), scales, strict=True)]
    if any(e != round(e) for e in exact):  # TVM would resize by the ratio of the sizes, another scale
        raise ValueError(f"Resize of {shape_of(x)} by {scales.tolist()} gives no whole numbers of pixels")
    mode = attrs.get("mode", b"nearest")
    method = {b"nearest": "nearest_neighbor", b"linear": "linear"}.get(mode)
    if not by_scales or method is None or len(exact) != 4 or exact[:2] != list(shape_of(x)[:2]):
        return None
    return relax.op.image.resize2d(
        x, relax.ShapeExpr([round(e) for e in exact[2:]]), layout="NCHW", method=method,
        coordinate_transformation_mode="asymmetric", rounding_method="floor",
    )  # fmt: skip


def _roi_align(inputs: Sequence[Any], attrs: Any) -> Any:
    """RoiAlign of half pixels, taken off once the region is scaled, not before, as by TVM; else None."""
    if attrs.get("coordinate_transformation_mode") != b"half_pixel":
        return None
    x, regions, image = inputs[:3]
    dtype, scale = str(regions.ty.dtype), float(attrs.get("spatial_scale", 1.0))
    image = relax.op.astype(relax.op.expand_dims(image, 1), dtype)
    scaled = relax.op.multiply(regions, relax.const(scale, dtype))
    regions = relax.op.subtract(scaled, relax.const(0.5, dtype))
    size = int(attrs.get("output_height", 1)), int(attrs.get("output_width", 1))
    return relax.op.vision.roi_align(
        x, relax.op.concat([image, regions], 1), size, 1.0, int(attrs.get("sampling_ratio", 0)), True
    )


#: Converters that emit several operators.
_LAYERS = {**converters(), "CumSum": running_sum, "TopK": top_k}
_CONVERTERS: dict[str, Callable[[Sequence[Any], Any], Any]] = {
    "Cast": _cast,
    "Clip": _clip,
    "DequantizeLinear": _dequantize,
    "Dropout": _dropout,
    "Equal": _equal,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _group_norm,
    "Gather": _gather,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_normalization,
    "Max": _folded(relax.op.maximum),
    "Min": _folded(relax.op.minimum),
    "Pad": _pad,
    "Pow": _power,
    "Resize": _resize,
    "RoiAlign": _roi_align,
    "Split": _split,
    "Sum": _folded(relax.op.add),
    "Tile": _tile,
    "Upsample": _resize,
}
