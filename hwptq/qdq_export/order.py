"""The order of values, as TopK."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm

from hwptq.ir.dataflow import shape_of
from hwptq.ir.real_operator import real_operator
from hwptq.operators.real_order import RealOrder

from .writer import Writer


def order_as_onnx(w: Writer, mod: tvm.IRModule, call: Any, output: str) -> str | None:
    """The places of the first in an order, added to a writer; None for another call."""
    real = real_operator(mod, call)
    if not isinstance(real, RealOrder):
        return None
    (x,) = call.args[1].fields
    count = w.tensor(np.array([shape_of(call)[-1]], np.int64))
    places = w.fresh(output)
    w.node("TopK", [w.name(x), count], [w.fresh(f"{output}_values"), places], largest=int(real.largest))
    return places
