"""Functions by table that make much of the rounding of what they read, as a root of sums of squares does.

A byte of |z|^2 is coarse where |z| is small, and the root makes it large again. What computes such a tensor
element by element, and the functions of it, are better left in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwptq.formats import INT8
from hwptq.ir.dataflow import data_of
from hwptq.lowering.elementwise import is_exact

from .drowned import Losses, Rounded
from .float_neighbours import ELEMENTWISE
from .quantization_plan import QuantizationPlan

REASON = "a byte keeps too little of what its functions make large"
#: Kinds of sums and products of two tensors, with a clamp perhaps.
_SUMS = ("add", "mul")
#: Tensors whose noise is followed to the outputs.
_MOST = 64


def drowned_functions(plan: QuantizationPlan, losses: Losses, worth: float) -> Mapping[str, str]:
    """The nodes that are to stay in float, by label, with the reason.

    worth: noise power at the outputs, relative to the signal's, from which on a tensor that is rounded alone
    counts. Only tensors that are computed element by element are looked at (what layers give to tables has
    more than a byte where that is offered), and functions that have the same bits in float everywhere.
    """
    tables: dict[Any, list[Any]] = {}
    for var, root in plan.roots.items():
        if root is not var and plan.kinds.get(root) in ELEMENTWISE and _is_byte(plan, root):
            tables.setdefault(root, []).append(var)
    nodes = {root: [*steps, *_makers(plan, root)] for root, steps in tables.items()}
    exact = [root for root, of in nodes.items() if all(_is_exact(plan, v) for v in of)]
    noise = losses.at_outputs([Rounded(r, plan.qparams[r].rounded, ()) for r in exact[:_MOST]])
    return {plan.labels[v]: REASON for r, cost in noise.items() if cost >= worth for v in nodes[r]}


def _is_exact(plan: QuantizationPlan, var: Any) -> bool:
    return plan.kinds[var] in _SUMS or is_exact(plan.values[var])


def _is_byte(plan: QuantizationPlan, var: Any) -> bool:
    held = plan.qparams[var].dtype if var in plan.qparams else None
    return held is not None and not held.is_float and held.bits <= INT8.bits


def _makers(plan: QuantizationPlan, root: Any) -> list[Any]:
    """What computes a tensor element by element, and nothing else."""
    found, waiting = [root], [root]
    while waiting:
        for var in data_of(plan.values[waiting.pop()]):
            alone = set(plan.readers.get(var, ())) <= set(found)
            if var not in found and alone and plan.kinds.get(var) in ELEMENTWISE:
                found.append(var)
                waiting.append(var)
    return found
