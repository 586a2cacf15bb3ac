"""Which nodes of a float graph have integer semantics, and which tensors they tie to one scale."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tvm

from hwptq.ir.dataflow import main_functions

#: Attribute of a function: JSON object, label of a node (ir/provenance.py) that stays in float -> reason.
FLOAT_REASONS = "hwptq.float_reasons"
#: Attribute of a QDQ function: JSON object, label of a layer -> its [activation, weight] dtypes. Int4 values
#: are held as int8, so the graph alone does not tell.
LAYER_DTYPES = "hwptq.layer_dtypes"
#: Attribute of a QDQ function: JSON object, label of a layer with weights per group -> channels of a group.
#: Its values are int4 times the factor of their group.
WEIGHT_GROUPS = "hwptq.weight_groups"
#: Attribute of a QDQ function: JSON object, label of a node whose weight, made elsewhere, was rounded anew ->
#: SQNR of it, dB.
ROUNDED_WEIGHTS = "hwptq.rounded_weights"
#: Operators that a weight, their second argument, makes a layer.
WEIGHTED_HEADS = ("nn.conv2d", "matmul")
#: Attribute of a float function: JSON object, label of a layer that is not equalized -> reason.
EQUALIZATION = "hwptq.equalization"
#: Attribute of a float function: JSON object, label of a layer -> the [activation, weight] dtypes to give it.
ASSIGNMENT = "hwptq.assignment"
#: What is said of nodes: by the name of a function, by the label of a node.
Tables = Mapping[str, Mapping[str, Any]]


def float_reasons(func: Any) -> dict[str, str]:
    """What a function says about its nodes that stay in float."""
    return _read(func, FLOAT_REASONS)


def layer_dtypes(func: Any) -> dict[str, tuple[str, str]]:
    """The (activation, weight) dtypes of each quantized layer of a function, by label."""
    return {name: (pair[0], pair[1]) for name, pair in _read(func, LAYER_DTYPES).items()}


def weight_groups(func: Any) -> dict[str, int]:
    """Input channels of a group of weights, for each layer of a QDQ function that has them."""
    return _read(func, WEIGHT_GROUPS)


def with_weight_groups(mod: tvm.IRModule, sizes: Tables) -> tvm.IRModule:
    """A module whose functions carry the sizes of groups of weights by layer."""
    return _with(mod, WEIGHT_GROUPS, sizes) if any(sizes.values()) else mod


def rounded_weights(func: Any) -> dict[str, float]:
    """The SQNR in dB of weights made elsewhere that had to be rounded anew, by label."""
    return _read(func, ROUNDED_WEIGHTS)


def with_rounded_weights(mod: tvm.IRModule, lost: Tables) -> tvm.IRModule:
    """A module whose functions say which weights were rounded anew."""
    return _with(mod, ROUNDED_WEIGHTS, lost) if any(lost.values()) else mod


def equalization(func: Any) -> dict[str, str]:
    """Why layers of a function are not equalized with those that follow, by label."""
    return _read(func, EQUALIZATION)


def with_float_reasons(mod: tvm.IRModule, reasons: Tables) -> tvm.IRModule:
    """A module whose functions carry `reasons` beside those they have."""
    return _with(mod, FLOAT_REASONS, reasons)


def with_layer_dtypes(mod: tvm.IRModule, dtypes: Tables) -> tvm.IRModule:
    """A module whose functions carry the (activation, weight) dtypes of layers beside those they have."""
    return _with(mod, LAYER_DTYPES, dtypes)


def with_equalization(mod: tvm.IRModule, reasons: Tables) -> tvm.IRModule:
    """A module whose functions say why layers are not equalized."""
    return _with(mod, EQUALIZATION, reasons)


def assignment(func: Any) -> dict[str, tuple[str, str]]:
    """The (activation, weight) dtypes that AssignBitWidths chose for the layers of a function."""
    return {name: (pair[0], pair[1]) for name, pair in _read(func, ASSIGNMENT).items()}


def with_assignment(mod: tvm.IRModule, pairs: Tables) -> tvm.IRModule:
    """A module whose functions carry the (activation, weight) dtypes to give their layers."""
    return _with(mod, ASSIGNMENT, pairs)


def _read(func: Any, key: str) -> dict[str, Any]:
    return dict(json.loads(str(func.attrs[key]))) if func.attrs and key in func.attrs else {}


def _with(mod: tvm.IRModule, key: str, tables: Tables) -> tvm.IRModule:
    functions = dict(mod.functions.items())
    for gv, func in main_functions(mod):
        table = {**_read(func, key), **tables.get(str(gv.name_hint), {})}
        functions[gv] = func.with_attr(key, json.dumps(table))
    return tvm.IRModule(functions, attrs=mod.attrs)
