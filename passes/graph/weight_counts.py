"""How many weights the nodes of a float module have: layers, and tables that rows are looked up in."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm

from hwptq.ir.composite import LAYERS, composite_kind, weight_of
from hwptq.ir.dataflow import bindings, constant, main_functions, op_name
from hwptq.ir.provenance import origins


def weight_counts(mod: tvm.IRModule) -> dict[str, int]:
    """Those of a fused float module, by the labels of its nodes. Biases are none."""
    found: dict[str, int] = {}
    for _, func in main_functions(mod):
        named = origins(func)
        for var, value in bindings(func):
            weight = node_weight(mod, value)
            if weight is not None:
                found[named[var].label] = int(weight.size)
    return found


def node_weight(mod: tvm.IRModule, value: Any) -> np.ndarray | None:
    """The constant weight of a layer, or the table of a look-up; None where a node has neither."""
    if composite_kind(mod, value) in LAYERS:
        return weight_of(value)
    if op_name(value) != "take":
        return None
    table = constant(value.args[0])
    return table if table is not None and table.ndim == 2 and table.dtype == np.float32 else None
