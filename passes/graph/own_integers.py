"""Weights that come as integers of another tool, in float: which ones, so that these integers are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.formats import INT8, Format
from hwptq.ir.composite import weight_of
from hwptq.quant.symmetric_weights import SymmetricWeight, on_grid


def own_integers(call: Any, dtype: Format = INT8) -> SymmetricWeight | None:
    """The integers of the constant weight of a composite of a layer, [O,I,KH,KW] or [K,O], with a scale for
    each output channel; None where it has none, or they don't fit `dtype`."""
    weight = weight_of(call)
    if weight is None or dtype.is_float or weight.ndim not in (2, 4):
        return None
    return on_grid(weight, 0 if weight.ndim == 4 else 1, dtype)


class OwnIntegers:
    """Remembers what was found of each layer."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, Format], SymmetricWeight | None] = {}

    def of(self, var: Any, call: Any, dtype: Format, least: np.ndarray | None) -> SymmetricWeight | None:
        """Those of the layer `var`; None where a scale is smaller than `least` of its channel."""
        if (var, dtype) not in self._found:
            self._found[var, dtype] = own_integers(call, dtype)
        found = self._found[var, dtype]
        fits = found is not None and (least is None or bool(np.all(found.scale >= least)))
        return found if fits else None
