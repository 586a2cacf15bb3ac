"""Scales and codes of rows (operators/rows.py) in ONNX: DynamicQuantizeLinear, but a scale for each row.

ONNX has no operator that finds a scale for each row, so they are written out; every node rounds as ours do.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from hwptq.ir.operator import Operator
from hwptq.operators.rows import LEAST, MOST, QMAX, RowQuantize, RowScale

from .writer import Writer


def rows_as_onnx(writer: Writer, op: Operator | None, inputs: list[str], output: str) -> str | None:
    """The name of the result of nodes added to a writer (writer.py); None for another operator."""
    if isinstance(op, RowScale):
        axes = writer.tensor(np.array([-1], np.int64))
        reach = writer.node("ReduceMax", [writer.node("Abs", inputs), axes], keepdims=1)
        kept = writer.node("Clip", [reach, *(writer.tensor(np.float32(v)) for v in (LEAST, MOST))])
        return str(writer.node("Div", [kept, writer.tensor(np.float32(QMAX))], output))
    if isinstance(op, RowQuantize):
        x, scale = inputs
        inverse = writer.node("Div", [writer.tensor(np.float32(1)), scale])
        steps = writer.node("Round", [writer.node("Mul", [x, inverse])])
        codes = writer.node("Clip", [steps, *(writer.tensor(np.float32(v)) for v in (-QMAX, QMAX))])
        return str(writer.node("Cast", [codes], output, to=TensorProto.INT8))
    return None
