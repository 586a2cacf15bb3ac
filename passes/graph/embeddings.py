"""Tables of embeddings in int8, a scale for each row: small rows are as fine as large ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.formats import INT8, PerAxis
from hwptq.ir.dataflow import constant
from hwptq.quant.qparams import quantize_weight, weight_scales

from .layer_weights import QuantizedWeight
from .quantization_plan import QuantizationPlan


def embedding_tables(plan: QuantizationPlan) -> dict[Any, QuantizedWeight]:
    """The table of each embedding of a plan that is quantized, by the var of its result."""
    chosen = [v for v, kind in plan.kinds.items() if kind == "embedding" and v in plan.qparams]
    return {var: _table(constant(plan.values[var].args[0])) for var in chosen}


def _table(rows: np.ndarray | None) -> QuantizedWeight:
    assert rows is not None  # a table that is computed is no embedding
    scale = weight_scales(rows, 0)
    return QuantizedWeight(quantize_weight(rows, scale, 0), scale, 0, INT8, PerAxis(0))
