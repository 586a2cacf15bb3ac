"""Weights by group in ONNX: DequantizeLinear in blocks, of opset 21.

Levels are held as int8, as int4 tensors are elsewhere in the file, scales as float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.operator import Operator
from hwptq.operators.group_dense import GroupDequantize
from hwptq.quant.group_codes import real_scales, unpack_rows

from .writer import Writer

#: The first opset of DequantizeLinear with block_size.
OPSET = 21


def groups_as_onnx(writer: Writer, op: Operator | None, arrays: list[Any], output: str) -> str | None:
    """The name of the result of a node added to a writer (writer.py); None for another operator, or for one
    whose arrays (None each) are no constants."""
    if not isinstance(op, GroupDequantize) or any(a is None for a in arrays):
        return None
    rows = op.rows(arrays)
    levels = unpack_rows(rows.codes, op.format, op.depth)
    tensors = [levels, real_scales(rows.scales), *([] if rows.zeros is None else [rows.zeros])]
    turned = [np.ascontiguousarray(t.T) if op.transposed else t for t in tensors]
    inputs = [writer.tensor(t, f"{output}_int8" if i == 0 else "const") for i, t in enumerate(turned)]
    axis = 0 if op.transposed else 1
    return str(writer.node("DequantizeLinear", inputs, output, axis=axis, block_size=op.size))
