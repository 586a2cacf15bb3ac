"""Which layer's result an add takes straight from the accumulator, where the device fuses the two."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from hwptq.ir.composite import read_composite
from hwptq.ir.dataflow import op_name, shape_of


def fused_summand(
    mod: tvm.IRModule, add: Any, values: dict[Any, Any], readers: dict[Any, list[Any]]
) -> Any:  # fmt: skip
    """The operand of `add` that is a conv2d or dense without a clamp, of the add's shape and read by nobody
    else; the one that is computed last where both are. None where there is none.
    """
    unit = read_composite(mod, add)
    if unit is None and op_name(add) != "add":
        return None
    if unit is not None and unit.kind != "add":
        return None
    operands = list(unit.args if unit else add.args)
    fitting = [a for a in operands if _fits(mod, a, add, values, readers)]
    order = {var: i for i, var in enumerate(values)}
    return max(fitting, key=lambda a: order[a], default=None)


def _fits(mod: tvm.IRModule, arg: Any, add: Any, values: dict[Any, Any], readers: Any) -> bool:
    if not isinstance(arg, relax.Var) or len(readers.get(arg, [])) != 1 or shape_of(arg) != shape_of(add):
        return False
    unit = read_composite(mod, values.get(arg))
    if unit is None or unit.kind not in ("conv2d", "matmul"):
        return False
    return not any(np.isfinite(bound).any() for bound in unit.bounds)
