"""Which nodes of a float graph have integer semantics, and which tensors they tie to one scale."""

from __future__ import annotations

import json
from typing import Any

import tvm
from tvm import relax

from hwptq.ir.dataflow import composite_name, constant, main_functions, op_name, shape_of

from .nearest import why_not_nearest

#: Attribute of a function: JSON object, name of a node that stays in float -> reason.
FLOAT_REASONS = "hwptq.float_reasons"
#: Attribute of a QDQ function: JSON object, name of a layer -> its [activation, weight] dtypes. Int4 values
#: are held as int8, so the graph alone does not tell.
LAYER_DTYPES = "hwptq.layer_dtypes"
#: Attribute of a QDQ function: JSON object, name of a layer with weights per group -> channels of a group.
#: Its values are int4 times the factor of their group.
WEIGHT_GROUPS = "hwptq.weight_groups"
#: Operators that a weight, their second argument, makes a layer.
WEIGHTED_HEADS = ("nn.conv2d", "matmul")
#: Attribute of a float function: JSON object, name of a layer that is not equalized -> reason.
EQUALIZATION = "hwptq.equalization"
#: Attribute of a float function: JSON object, name of a layer -> the [activation, weight] dtypes to give it.
ASSIGNMENT = "hwptq.assignment"
#: Operators whose output holds values of their input: one scale for both.
DATA_MOVEMENT = {"reshape", "permute_dims", "strided_slice", "nn.pad", "squeeze", "expand_dims", "flatten"}
#: Functions of one tensor, element by element: one table of 256 entries for a whole chain of them.
UNARY = {
    "nn.relu", "nn.gelu", "nn.silu", "nn.leakyrelu", "sigmoid", "tanh", "exp", "log", "erf", "sqrt", "rsqrt",
    "abs", "negative", "square", "clip", "sin", "cos", "floor", "ceil", "round", "nn.softplus", "sign",
}  # fmt: skip
BINARY = {"add", "subtract", "multiply", "divide", "maximum", "minimum", "power"}


def is_elementwise(value: Any) -> bool:
    """Whether `value` is a function of its tensor arguments, element by element, scalars aside."""
    name = op_name(value)
    if name in UNARY:
        return True
    return name in BINARY and any(c is not None and c.size == 1 for c in map(constant, value.args))


def elementwise_root(var: Any, values: dict[Any, Any]) -> Any:
    """The tensor of the same shape that `var` is an elementwise function of; `var` itself if there is none.

    x * sigmoid(x) has the root x, a * sigmoid(b) has none.
    """
    value: Any = values.get(var)
    if op_name(value) not in UNARY | BINARY:
        return var
    tensors = [a for a in value.args if isinstance(a, relax.Var)]
    scalars = [c for c in map(constant, value.args) if c is not None]
    roots = {elementwise_root(t, values) for t in tensors}
    if len(roots) != 1 or any(c.size != 1 for c in scalars):
        return var
    (root,) = roots
    return root if shape_of(root) == shape_of(var) else var


def kind(mod: tvm.IRModule, value: Any) -> str | None:
    """The operator kind of a descriptor's [[op]] rule that `value` falls under, or None."""
    if not isinstance(value, relax.Call) or getattr(value.ty, "dtype", None) != "float32":
        return None
    if isinstance(value.op, tvm.ir.GlobalVar):
        return _composite_kind(mod, value)
    name = op_name(value)
    if name in ("nn.max_pool2d", "nn.avg_pool2d"):
        return name.removeprefix("nn.").removesuffix("2d") if str(value.attrs.layout) == "NCHW" else None
    if name == "nn.adaptive_avg_pool2d" or (name == "mean" and _is_spatial(value)):
        return "avg_pool"
    if name in DATA_MOVEMENT:
        return "data_movement"
    if name == "concat":
        return "concat"
    if name == "image.resize2d":
        return None if why_not_nearest(value) else "resize"
    if is_elementwise(value):
        return "lookup"
    return {"multiply": "mul", "subtract": "add", "add": "add"}.get(name)


def _is_spatial(call: Any) -> bool:
    """Whether a mean runs over H and W of an NCHW tensor."""
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axis
    return rank == 4 and axes is not None and sorted(int(a) % rank for a in axes) == [2, 3]


def _composite_kind(mod: tvm.IRModule, call: Any) -> str | None:
    name = composite_name(mod[call.op])
    if name == "hwptq.conv2d":
        weight = weight_of(mod, call)
        if weight is None or len(weight.shape) != 4:
            return None
        groups = int(head(mod, call).attrs.groups)
        return "depthwise_conv2d" if groups > 1 and groups == shape_of(call.args[0])[1] else "conv2d"
    if name == "hwptq.matmul":
        weight = weight_of(mod, call)
        return "dense" if weight is not None and weight.ndim == 2 else ("matmul" if weight is None else None)
    return "add" if name == "hwptq.add" else None


def head(mod: tvm.IRModule, call: Any) -> Any:
    """The first operator inside a composite."""
    return mod[call.op].body.blocks[0].bindings[0].value


def weight_of(mod: tvm.IRModule, call: Any) -> Any:
    """The constant weight of a conv2d or matmul composite, or None."""
    return constant(call.args[1])


def ties_scale(value: Any, node_kind: str | None) -> bool:
    """Whether inputs and output of the node must have one scale."""
    return node_kind in ("data_movement", "concat", "max_pool", "resize")


#: Ends the name of the float32 result of an integer operator.
FLOAT_SUFFIX = "_float"


def node_name(tensor_name: str) -> str:
    """The node whose result an integer operator yields: "conv1_nhwc" and "conv1_q" are both of "conv1"."""
    if tensor_name.endswith(FLOAT_SUFFIX):
        return tensor_name.removesuffix(FLOAT_SUFFIX)
    return tensor_name.removesuffix("_nhwc").removesuffix("_q")


def layer_name(tensor_name: str) -> str:
    """The node that an integer operator belongs to; it may be followed by a clamp that yields the result."""
    return node_name(tensor_name.removesuffix("_unclamped"))


def float_reasons(func: Any) -> dict[str, str]:
    """What a function says about its nodes that stay in float."""
    return _read(func, FLOAT_REASONS)


def layer_dtypes(func: Any) -> dict[str, tuple[str, str]]:
    """The (activation, weight) dtypes of each quantized layer of a function, by name."""
    return {name: (pair[0], pair[1]) for name, pair in _read(func, LAYER_DTYPES).items()}


def weight_groups(func: Any) -> dict[str, int]:
    """Input channels of a group of weights, for each layer of a QDQ function that has them."""
    return _read(func, WEIGHT_GROUPS)


def with_weight_groups(mod: tvm.IRModule, sizes: dict[str, int]) -> tvm.IRModule:
    """A module whose functions carry the sizes of groups of weights by layer."""
    return _with(mod, WEIGHT_GROUPS, sizes) if sizes else mod


def equalization(func: Any) -> dict[str, str]:
    """Why layers of a function are not equalized with those that follow, by name."""
    return _read(func, EQUALIZATION)


def with_float_reasons(mod: tvm.IRModule, reasons: dict[str, str]) -> tvm.IRModule:
    """A module whose functions carry `reasons` beside those they have."""
    return _with(mod, FLOAT_REASONS, reasons)


def with_layer_dtypes(mod: tvm.IRModule, dtypes: dict[str, tuple[str, str]]) -> tvm.IRModule:
    """A module whose functions carry the (activation, weight) dtypes of layers beside those they have."""
    return _with(mod, LAYER_DTYPES, dtypes)


def with_equalization(mod: tvm.IRModule, reasons: dict[str, str]) -> tvm.IRModule:
    """A module whose functions say why layers are not equalized."""
    return _with(mod, EQUALIZATION, reasons)


def assignment(func: Any) -> dict[str, tuple[str, str]]:
    """The (activation, weight) dtypes that AssignBitWidths chose for the layers of a function."""
    return {name: (pair[0], pair[1]) for name, pair in _read(func, ASSIGNMENT).items()}


def with_assignment(mod: tvm.IRModule, pairs: dict[str, tuple[str, str]]) -> tvm.IRModule:
    """A module whose functions carry the (activation, weight) dtypes to give their layers."""
    return _with(mod, ASSIGNMENT, pairs)


def _read(func: Any, key: str) -> dict[str, Any]:
    return dict(json.loads(str(func.attrs[key]))) if func.attrs and key in func.attrs else {}


def _with(mod: tvm.IRModule, key: str, values: dict[str, Any]) -> tvm.IRModule:
    functions = dict(mod.functions.items())
    for gv, func in main_functions(mod):
        functions[gv] = func.with_attr(key, json.dumps({**_read(func, key), **values}))
    return tvm.IRModule(functions, attrs=mod.attrs)
