"""What the outputs of a function are put together from: heads of a detector that leave as one tensor.

Noise is measured in each for itself: beside boxes in hundreds of pixels, scores in 0 … 1 do not count.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from hwptq.ir.dataflow import bindings, op_name, reads
from hwptq.ir.movement import REARRANGED

_MOVES = ("concat", *REARRANGED)


def output_parts(func: Any) -> list[Any]:
    """The vars that something computes and that concats and moves alone bring to the outputs of `func`."""
    values = dict(bindings(func))
    found, waiting = [], list(reads(func.body.body))
    while waiting:
        var = waiting.pop()
        value = values.get(var)
        if op_name(value) in _MOVES or isinstance(value, relax.Var | relax.Tuple):
            waiting += reads(value)
        else:
            found.append(var)
    return list(dict.fromkeys(found))
