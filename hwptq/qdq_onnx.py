"""A QDQ module as a standard ONNX file: QuantizeLinear, DequantizeLinear, float operators, no custom ones.

int4 tensors are held as int8 within [-8, 7], as in the module. The file gives other tools the scales, zero
points and weights that were chosen; what they compute of it is up to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tvm
from onnx import helper, numpy_helper
from tvm import relax

from hwptq.formats import format_of
from hwptq.ir.dataflow import bindings, constant, op_name, shape_of, slice_bounds
from hwptq.ir.operator import integer_operator
from hwptq.ir.provenance import origins
from hwptq.ir.qdq import quantizes
from hwptq.operators.group_dense import GroupDequantize

from . import __version__
from .qdq_groups import OPSET as GROUPS_OPSET
from .qdq_groups import groups_as_onnx
from .qdq_rows import rows_as_onnx

OPSET = 19  # or a newer one that a format asks for
#: Roundings of a coordinate that ONNX knows.
_NEAREST_MODES = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_IR_VERSIONS = {19: 9, 21: 10}  # by opset


class NotExportable(ValueError):
    """An operator that has no ONNX form here; the message names it."""


def export_qdq(mod: tvm.IRModule, outputs: Sequence[str], name: str) -> onnx.ModelProto:
    """`main` of a QDQ module (or a float one) as an ONNX model with the output names `outputs`.

    Raises NotExportable for an operator without a converter.
    """
    writer = _Writer(mod)
    func = mod["main"]
    for param in func.params:
        writer.names[param] = writer.fresh(str(param.name))
    named = origins(func)
    for var, value in bindings(func):
        writer.bind(var, value, named[var].hint)
    result = func.body.body
    result = dict(bindings(func)).get(result, result) if isinstance(result, relax.Var) else result
    results = list(result.fields) if isinstance(result, relax.Tuple) else [func.body.body]
    for expr, output in zip(results, outputs, strict=True):
        unused = writer.fresh(output, exact=True)  # first: it may rename what `expr` is
        writer.node("Identity", [writer.name(expr)], unused)
    graph = helper.make_graph(
        writer.nodes,
        name,
        [helper.make_tensor_value_info(writer.names[p], *_type(p)) for p in func.params],
        [helper.make_tensor_value_info(o, *_type(e)) for e, o in zip(results, outputs, strict=True)],
        writer.initializers,
    )
    held = [format_of(str(v.ty.dtype)) for v, value in bindings(func) if quantizes(value)]
    blocked = [
        GROUPS_OPSET for _, v in bindings(func) if isinstance(integer_operator(mod, v), GroupDequantize)
    ]
    opset = max([OPSET, *blocked, *(f.opset for f in held)])
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=_IR_VERSIONS[opset],
        producer_name="hwptq",
        producer_version=__version__,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def save_qdq(mod: tvm.IRModule, outputs: Sequence[str], name: str, path: Path) -> str:
    """Write the module to `path`; returns the file's name, or why there is none."""
    try:
        onnx.save(export_qdq(mod, outputs, name), str(path))
    except NotExportable as error:
        return f"not written: {error}"
    return path.name


def _type(expr: Any) -> tuple[int, tuple[int, ...]]:
    return helper.np_dtype_to_tensor_dtype(np.dtype(str(expr.ty.dtype))), shape_of(expr)


def _renamed(name: Any, old: str, new: str) -> Any:
    """A name, or a list of names, with one of them changed."""
    return [_renamed(n, old, new) for n in name] if isinstance(name, list) else new if name == old else name


class _Writer:
    """Nodes and initializers so far, and the ONNX name of every Relax var."""

    def __init__(self, mod: tvm.IRModule):
        self.mod = mod
        self.names: dict[Any, Any] = {}  # Var -> name, or a list of names for a tuple
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._taken: set[str] = set()

    def fresh(self, wanted: str, exact: bool = False) -> str:
        """An unused name like `wanted`; that very one if `exact`, and another tensor has to give way."""
        name, k = wanted, 0
        while name in self._taken:
            k += 1
            name = f"{wanted}_{k}"
        if exact and name != wanted:
            self._rename(wanted, name)
            name = wanted
        self._taken |= {name, wanted}
        return name

    def _rename(self, old: str, new: str) -> None:
        self._taken.add(new)
        for node in self.nodes:
            node.input[:] = [new if n == old else n for n in node.input]
            node.output[:] = [new if n == old else n for n in node.output]
        for var, name in self.names.items():
            self.names[var] = _renamed(name, old, new)

    def name(self, expr: Any) -> Any:
        """The ONNX name of an expression; constants become initializers."""
        array = constant(expr)
        if array is not None:
            return self.tensor(array)
        if isinstance(expr, relax.Tuple):
            return [self.name(field) for field in expr.fields]
        if isinstance(expr, relax.TupleGetItem):
            return self.name(expr.tuple_value)[expr.index]
        return self.names[expr]

    def tensor(self, array: Any, hint: str = "const") -> str:
        """A new initializer."""
        name = self.fresh(hint)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str | Sequence[str] = "", **attributes: Any
    ) -> Any:
        """A new node; returns its output."""
        output = output or self.fresh(op.lower())
        outputs = [output] if isinstance(output, str) else list(output)
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return output

    def bind(self, var: Any, value: Any, name: str) -> None:
        """The nodes of one binding, the last of them called `name`."""
        if not isinstance(value, relax.Call):
            self.names[var] = self.name(value)
        elif isinstance(value.op, tvm.ir.GlobalVar):
            self.names[var] = self._composite(name, value)
        else:
            self.names[var] = self._operator(name, value)

    def _composite(self, name: str, call: Any) -> str:
        """The nodes of an outlined function, the last of them called `name`."""
        func = self.mod[call.op]
        rank = len(shape_of(call))
        for param, argument in zip(func.params, call.args, strict=True):
            array = constant(argument)
            if array is not None and array.ndim == 1 and rank > 2:
                # ONNX Runtime 1.32 makes a Gemm of a product and an added vector, whose Q it rejects
                self.names[param] = self.tensor(array.reshape([1] * (rank - 1) + [-1]))
            else:
                self.names[param] = self.name(argument)
        inner = bindings(func)
        last = next(v for v, value in reversed(inner) if isinstance(value, relax.Call))
        for local, value in inner:
            if isinstance(value, relax.Call):
                suffix = "" if local == last else f"_{op_name(value).removeprefix('nn.')}"
                self.names[local] = self._operator(f"{name}{suffix}", value)
            else:
                self.names[local] = self.name(value)
        return str(self.name(func.body.body))

    def _operator(self, name: str, call: Any) -> Any:
        op = op_name(call)
        output = self.fresh(name)
        if op in _PLAIN:
            return self.node(_PLAIN[op], [self.name(a) for a in call.args], output)
        if op == "call_tir":
            made, fields = integer_operator(self.mod, call), call.args[1].fields
            found = groups_as_onnx(self, made, [constant(a) for a in fields], output)
            found = found or rows_as_onnx(self, made, [self.name(a) for a in fields], output)
            if found is not None:
                return found
        if op not in _CONVERTERS:
            raise NotExportable(f"{name}: {op or 'call'} has no ONNX form")
        return _CONVERTERS[op](self, call, output)


#: Operators that are one ONNX node with the same arguments.
_PLAIN = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "maximum": "Max",
    "minimum": "Min", "matmul": "MatMul", "nn.relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "exp": "Exp", "log": "Log", "erf": "Erf", "sqrt": "Sqrt", "abs": "Abs", "negative": "Neg",
    "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "sin": "Sin", "cos": "Cos",
    "nn.softplus": "Softplus", "where": "Where", "equal": "Equal",
    "less": "Less", "logical_not": "Not", "logical_or": "Or", "logical_and": "And",
}  # fmt: skip


def _ints(values: Any) -> list[int]:
    return [int(v) for v in values]


def _quantize(w: _Writer, call: Any, output: str) -> str:
    axis = {"axis": int(call.attrs.axis) % len(shape_of(call))} if shape_of(call.args[1]) else {}
    x, scale, zero = call.args
    return w.node(
        "QuantizeLinear", [w.name(x), w.name(scale), _zero(w, zero, call.ty.dtype)], output, **axis
    )  # fmt: skip


def _dequantize(w: _Writer, call: Any, output: str) -> str:
    axis = {"axis": int(call.attrs.axis) % len(shape_of(call))} if shape_of(call.args[1]) else {}
    values = constant(call.args[0])
    data = w.name(call.args[0]) if values is None else w.tensor(values, f"{output}_int8")
    zero = _zero(w, call.args[2], call.args[0].ty.dtype)
    return w.node("DequantizeLinear", [data, w.name(call.args[1]), zero], output, **axis)


def _zero(w: _Writer, expr: Any, dtype: Any) -> str:
    """A zero point in the dtype of its tensor, as ONNX has it; Relax holds that of e4m3 as float16."""
    value = constant(expr)
    return w.name(expr) if value is None else w.tensor(value.astype(np.dtype(str(dtype))))


def _conv2d(w: _Writer, call: Any, output: str) -> str:
    a = call.attrs
    if str(a.data_layout) != "NCHW" or str(a.kernel_layout) != "OIHW":
        raise NotExportable(f"{output}: conv2d of layout {a.data_layout}/{a.kernel_layout}")
    return w.node(
        "Conv", [w.name(x) for x in call.args], output, strides=_ints(a.strides), pads=_ints(a.padding),
        dilations=_ints(a.dilation), group=int(a.groups),
    )  # fmt: skip


def _pool(op: str) -> Callable[[_Writer, Any, str], str]:
    def convert(w: _Writer, call: Any, output: str) -> str:
        a = call.attrs
        extra: dict[str, Any] = {}
        if op == "AveragePool":
            extra["count_include_pad"] = int(a.count_include_pad)
        if any(d != 1 for d in _ints(a.dilation)):  # ONNX Runtime's pooling of codes knows no such attribute
            extra["dilations"] = _ints(a.dilation)
        return w.node(
            op, [w.name(call.args[0])], output, kernel_shape=_ints(a.pool_size), strides=_ints(a.strides),
            pads=_ints(a.padding), ceil_mode=int(a.ceil_mode), **extra,
        )  # fmt: skip

    return convert


def _global_pool(w: _Writer, call: Any, output: str) -> str:
    if shape_of(call)[2:] != (1, 1):
        raise NotExportable(f"{output}: adaptive pooling to more than one pixel")
    return w.node("GlobalAveragePool", [w.name(call.args[0])], output)


def _reduce(op: str) -> Callable[[_Writer, Any, str], str]:
    def convert(w: _Writer, call: Any, output: str) -> str:
        axes = call.attrs.axis
        rank = len(shape_of(call.args[0]))
        axes = range(rank) if axes is None else _ints(axes)
        inputs = [w.name(call.args[0]), w.tensor(np.array(list(axes), np.int64))]
        return w.node(op, inputs, output, keepdims=int(call.attrs.keepdims))

    return convert


def _clip(w: _Writer, call: Any, output: str) -> str:
    bounds = [w.tensor(np.float32(a.value)) for a in call.args[1:3]]
    return w.node("Clip", [w.name(call.args[0]), *bounds], output)


def _reshape(w: _Writer, call: Any, output: str) -> str:
    shape = w.tensor(np.array(shape_of(call), np.int64))
    return w.node("Reshape", [w.name(call.args[0]), shape], output)


def _expand(w: _Writer, call: Any, output: str) -> str:
    shape = w.tensor(np.array(shape_of(call), np.int64))
    return w.node("Expand", [w.name(call.args[0]), shape], output)


def _transpose(w: _Writer, call: Any, output: str) -> str:
    rank, axes = len(shape_of(call)), call.attrs.axes
    perm = list(range(rank))[::-1] if axes is None else [int(a) % rank for a in axes]
    return w.node("Transpose", [w.name(call.args[0])], output, perm=perm)


def _concat(w: _Writer, call: Any, output: str) -> str:
    fields = call.args[0].fields
    return w.node("Concat", [w.name(f) for f in fields], output, axis=int(call.attrs.axis))


def _slice(w: _Writer, call: Any, output: str) -> str:
    axes, begin, end, strides = slice_bounds(call)
    tensors = [w.tensor(np.array(v, np.int64)) for v in (begin, end, axes, strides)]
    return w.node("Slice", [w.name(call.args[0]), *tensors], output)


def _pad(w: _Writer, call: Any, output: str) -> str:
    widths = _ints(call.attrs.pad_width)
    pads = w.tensor(np.array([*widths[::2], *widths[1::2]], np.int64))
    value = w.tensor(np.asarray(float(call.attrs.pad_value), np.float32))
    return w.node("Pad", [w.name(call.args[0]), pads, value], output, mode=str(call.attrs.pad_mode))


def _resize(w: _Writer, call: Any, output: str) -> str:
    a, modes = call.attrs, {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
    mode, rounding = modes[str(a.method)], str(a.rounding_method)
    if str(a.layout) != "NCHW" or (mode == "nearest" and rounding not in _NEAREST_MODES):
        raise NotExportable(f"{output}: resize2d of layout {a.layout} with rounding {rounding}")
    nearest = {"nearest_mode": rounding} if mode == "nearest" else {}
    cubic = {"cubic_coeff_a": float(a.cubic_alpha)} if mode == "cubic" else {}
    start_h, start_w, end_h, end_w = (float(v) for v in a.roi)
    roi = w.tensor(np.array([0, 0, start_h, start_w, 1, 1, end_h, end_w], np.float32))
    sizes = w.tensor(np.array(shape_of(call), np.int64))
    return w.node(
        "Resize", [w.name(call.args[0]), roi, "", sizes], output, mode=mode, **nearest, **cubic,
        coordinate_transformation_mode=str(a.coordinate_transformation_mode),
        exclude_outside=int(a.cubic_exclude), extrapolation_value=float(a.extrapolation_value),
    )  # fmt: skip


def _softmax(w: _Writer, call: Any, output: str) -> str:
    return w.node("Softmax", [w.name(call.args[0])], output, axis=int(call.attrs.axis))


def _leaky(w: _Writer, call: Any, output: str) -> str:
    return w.node("LeakyRelu", [w.name(call.args[0])], output, alpha=float(call.attrs.alpha))


def _gelu(w: _Writer, call: Any, output: str) -> str:
    """x / 2 * (1 + erf(x / sqrt 2)): Gelu as an operator came with opset 20 only."""
    x = w.name(call.args[0])
    root, one, half = (w.tensor(np.float32(v)) for v in (np.sqrt(2), 1, 0.5))
    erf = w.node("Erf", [w.node("Div", [x, root])])
    return w.node("Mul", [w.node("Mul", [x, half]), w.node("Add", [erf, one])], output)


def _silu(w: _Writer, call: Any, output: str) -> str:
    x = w.name(call.args[0])
    return w.node("Mul", [x, w.node("Sigmoid", [x])], output)


def _square(w: _Writer, call: Any, output: str) -> str:
    x = w.name(call.args[0])
    return w.node("Mul", [x, x], output)


def _rsqrt(w: _Writer, call: Any, output: str) -> str:
    return w.node("Reciprocal", [w.node("Sqrt", [w.name(call.args[0])])], output)


def _cast(w: _Writer, call: Any, output: str) -> str:
    return w.node("Cast", [w.name(call.args[0])], output, to=_type(call)[0])


def _layer_norm(w: _Writer, call: Any, output: str) -> str:
    axes, rank = _ints(call.attrs.axes), len(shape_of(call))
    first = min(a % rank for a in axes)
    if sorted(a % rank for a in axes) != list(range(first, rank)):
        raise NotExportable(f"{output}: layer_norm over axes that are not the last ones")
    inputs = [w.name(a) for a in call.args]
    return w.node("LayerNormalization", inputs, output, axis=first, epsilon=float(call.attrs.epsilon))


def _rms_norm(w: _Writer, call: Any, output: str) -> str:
    rank = len(shape_of(call))
    if [a % rank for a in _ints(call.attrs.axes)] != [rank - 1]:
        raise NotExportable(f"{output}: rms_norm over other axes than the last")
    x, gamma = (w.name(a) for a in call.args)
    squares = w.node("Mul", [x, x], w.fresh(f"{output}_square"))
    mean = w.node("ReduceMean", [squares, w.tensor(np.array([-1], np.int64))], w.fresh(f"{output}_mean"))
    shifted = w.node("Add", [mean, w.tensor(np.float32(call.attrs.epsilon))], w.fresh(f"{output}_eps"))
    root = w.node("Sqrt", [shifted], w.fresh(f"{output}_root"))
    return w.node("Mul", [w.node("Div", [x, root], w.fresh(f"{output}_normal")), gamma], output)


def _not_equal(w: _Writer, call: Any, output: str) -> str:
    equal = w.node("Equal", [w.name(a) for a in call.args], w.fresh(f"{output}_equal"))
    return w.node("Not", [equal], output)


def _group_norm(w: _Writer, call: Any, output: str) -> str:
    """InstanceNormalization of [N, G, -1], which older opsets than that of GroupNormalization have."""
    shape, groups, axes = shape_of(call), int(call.attrs.num_groups), _ints(call.attrs.axes)
    if int(call.attrs.channel_axis) != 1 or sorted(axes) != list(range(2, len(shape))):
        raise NotExportable(f"{output}: group_norm over other axes than those behind the channels")
    x, *vectors = (w.name(a) for a in call.args)
    epsilon = float(call.attrs.epsilon)
    if groups == shape[1]:
        return w.node("InstanceNormalization", [x, *vectors], output, epsilon=epsilon)
    ones, zeros = (w.tensor(np.full(groups, value, np.float32)) for value in (1, 0))
    rows = w.node("Reshape", [x, w.tensor(np.array([shape[0], groups, -1], np.int64))])
    normal = w.node("InstanceNormalization", [rows, ones, zeros], epsilon=epsilon)
    y = w.node("Reshape", [normal, w.tensor(np.array(shape, np.int64))])
    spread = w.tensor(np.array([-1, *(1 for _ in axes)], np.int64))
    scale, bias = (w.node("Reshape", [v, spread]) for v in vectors)
    return w.node("Add", [w.node("Mul", [y, scale]), bias], output)


def _take(w: _Writer, call: Any, output: str) -> str:
    axis = 0 if call.attrs.axis is None else int(call.attrs.axis)
    return w.node("Gather", [w.name(a) for a in call.args], output, axis=axis)


def _split(w: _Writer, call: Any, output: str) -> list[str]:
    axis = int(call.attrs.axis)
    sizes = [int(t.shape.values[axis]) for t in call.ty.fields]
    outputs = [w.fresh(f"{output}_{i}") for i in range(len(sizes))]
    inputs = [w.name(call.args[0]), w.tensor(np.array(sizes, np.int64))]
    return list(w.node("Split", inputs, outputs, axis=axis))


_CONVERTERS: dict[str, Callable[[_Writer, Any, str], Any]] = {
    "quantize": _quantize,
    "dequantize": _dequantize,
    "nn.conv2d": _conv2d,
    "nn.max_pool2d": _pool("MaxPool"),
    "nn.avg_pool2d": _pool("AveragePool"),
    "nn.adaptive_avg_pool2d": _global_pool,
    "mean": _reduce("ReduceMean"),
    "sum": _reduce("ReduceSum"),
    "max": _reduce("ReduceMax"),
    "min": _reduce("ReduceMin"),
    "clip": _clip,
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_to": _expand,
    "permute_dims": _transpose,
    "concat": _concat,
    "strided_slice": _slice,
    "nn.pad": _pad,
    "image.resize2d": _resize,
    "nn.softmax": _softmax,
    "nn.leakyrelu": _leaky,
    "nn.gelu": _gelu,
    "nn.silu": _silu,
    "square": _square,
    "rsqrt": _rsqrt,
    "astype": _cast,
    "nn.layer_norm": _layer_norm,
    "nn.rms_norm": _rms_norm,
    "not_equal": _not_equal,
    "nn.group_norm": _group_norm,
    "take": _take,
    "split": _split,
}
