"""One step of an LSTM, a GRU or a plain recurrent layer, written once for every arithmetic.

Gates come in the order of ONNX: LSTM i, o, f, c; GRU z, r, h. x and h are what a gate gets from the input and
from the state. `ops` computes: on arrays of integers (quant/gates.py), or by emitting code.
"""

from __future__ import annotations

from typing import Any

#: Gates by kind of cell.
GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def lstm(ops: Any, x: list[Any], h: list[Any], cell: Any) -> tuple[Any, Any]:
    """(hidden, cell): c = f c + i tanh(g), h = o tanh(c). Hochreiter and Schmidhuber 1997; ONNX's LSTM."""
    i, o, f = (ops.sigmoid(ops.total(x[n], h[n])) for n in range(3))
    g = ops.tanh(ops.total(x[3], h[3]))
    cell = ops.cell(ops.times(f, cell), ops.into_cell(i, g))
    return ops.times(o, ops.tanh(ops.of_cell(cell))), cell


def reset_gate(ops: Any, x: list[Any], h: list[Any]) -> Any:
    """r of a GRU."""
    return ops.sigmoid(ops.total(x[1], h[1]))


def gru(ops: Any, x: list[Any], h: list[Any], reset: Any, state: Any) -> Any:
    """The hidden state z h + (1 - z) n with n = tanh(x + h). Cho et al. 2014; ONNX's GRU.

    reset: r where it is applied to the product of the state (linear_before_reset), None where the state that
    was multiplied had it before.
    """
    z = ops.sigmoid(ops.total(x[0], h[0]))
    product = h[2] if reset is None else ops.times(reset, h[2])
    return ops.blend(z, state, ops.tanh(ops.total(x[2], product)))


def rnn(ops: Any, x: list[Any], h: list[Any]) -> Any:
    """tanh(x + h)."""
    return ops.tanh(ops.total(x[0], h[0]))
