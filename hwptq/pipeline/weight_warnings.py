"""Weights of another tool whose integers could not be kept."""

from __future__ import annotations

from collections.abc import Iterator

import tvm

from hwptq.ir.dataflow import main_functions
from hwptq.notices import Warning
from hwptq.passes.graph.quantizable import rounded_weights

_SHOWN = 3  # names in a message


def weight_warnings(qdq: tvm.IRModule) -> Iterator[Warning]:
    """One for each function with weights that were rounded anew."""
    for _, func in main_functions(qdq):
        lost = rounded_weights(func)
        if lost:
            names = ", ".join(list(lost)[:_SHOWN]) + (", …" if len(lost) > _SHOWN else "")
            text = (
                f"the integers of {len(lost)} weights ({names}) have no int8 form with one scale for each "
                f"output channel and no zero point; they were rounded anew, with {min(lost.values()):.1f} dB "
                f"at the least: quantize weights symmetrically"
            )
            yield Warning("weights", "", text)
