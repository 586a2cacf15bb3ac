"""LSTM, GRU and RNN of ONNX as one operator each, and slices of its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from hwptq.ir.dataflow import constant, shape_of
from hwptq.operators.real_recurrent import RealRecurrent
from hwptq.quant.recurrence import GATES
from hwptq.tir.kernel import TensorType
from hwptq.tir.recurrent_states import Recurrence

#: The functions of the gates that there is arithmetic for, of one direction.
_ACTIVATIONS = {"lstm": ["sigmoid", "tanh", "tanh"], "gru": ["sigmoid", "tanh"], "rnn": ["tanh"]}
_DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


def recurrent_layer(builder: relax.BlockBuilder, cell: str, inputs: Sequence[Any], attrs: Any) -> Any:
    """A Tuple of the outputs: Y, Y_h and, of an LSTM, Y_c. Raises ValueError for what has no arithmetic."""
    x, w, r, b, lengths, hidden, *others = [*inputs, *[None] * 8][:8]
    first_cell, peepholes = others if cell == "lstm" else (None, None)
    direction = _text(attrs.get("direction", "forward"))
    _check(cell, attrs, len(_DIRECTIONS[direction]), peepholes)
    weight, bias = _constants(cell, w, r, b)
    batch_first = bool(attrs.get("layout", 0))
    if batch_first:
        x = builder.emit(relax.op.permute_dims(x, [1, 0, 2]))
        hidden, first_cell = (_directions_first(builder, s) for s in (hidden, first_cell))
    last = 2 if cell == "lstm" and int(attrs["tvm_custom"]["num_outputs"]) > 2 else 1
    op = RealRecurrent(
        cell, _DIRECTIONS[direction], bool(attrs.get("linear_before_reset", 0)), last,
        lengths is not None, hidden is not None, first_cell is not None,
    )  # fmt: skip
    steps, batch, _ = shape_of(x)
    shape = Recurrence(
        cell, steps, batch, shape_of(x)[2], int(attrs["hidden_size"]), op.backwards, op.reset_after, last
    ).shape
    given = [t for t in (lengths, hidden, first_cell) if t is not None]
    args = [x, *given, relax.const(weight), relax.const(bias)]
    types = [TensorType(shape_of(a), str(a.ty.dtype)) for a in args]
    function = builder.add_func(op.primfunc(types, TensorType(shape, "float32")), f"hwptq_real_{cell}")
    states = builder.emit(relax.call_tir(function, args, relax.TensorType(shape, "float32")))
    outputs = [relax.op.strided_slice(states, [0], [0], [steps])]
    for row in range(last):
        one = builder.emit(relax.op.strided_slice(states, [0], [steps + row], [steps + row + 1]))
        outputs.append(relax.op.reshape(one, shape[1:]))
    if batch_first:
        outputs = [relax.op.permute_dims(builder.emit(outputs[0]), [2, 0, 1, 3])] + [
            relax.op.permute_dims(builder.emit(o), [1, 0, 2]) for o in outputs[1:]
        ]
    return relax.Tuple([builder.emit(o) for o in outputs])


def _check(cell: str, attrs: Any, directions: int, peepholes: Any) -> None:
    """Raise ValueError for what a layer may ask for, and hardly any does."""
    functions = [_text(f).lower() for f in attrs.get("activations", [])]
    if functions and functions != _ACTIVATIONS[cell] * directions:
        raise ValueError(f"its activations are {', '.join(functions)}; only {_ACTIVATIONS[cell]} are known")
    if attrs.get("clip", 0.0) or attrs.get("input_forget", 0):
        raise ValueError("its clip or input_forget is not supported; export the layer without it")
    values = None if peepholes is None else constant(peepholes)
    if peepholes is not None and (values is None or np.any(values)):
        raise ValueError("its peepholes (P) are not supported; export the layer without them")


def _constants(cell: str, w: Any, r: Any, b: Any) -> tuple[np.ndarray, np.ndarray]:
    """(weight, bias) as RealRecurrent takes them."""
    arrays = [constant(t) for t in (w, r)]
    if any(a is None for a in arrays) or (b is not None and constant(b) is None):
        raise ValueError("its weights are computed; they must be constants of the file")
    weight = np.concatenate([a.reshape(-1, a.shape[2]) for a in arrays if a is not None], axis=1)
    rows = len(weight)
    if b is None:
        return weight, np.zeros((2, rows), np.float32)
    halves = np.asarray(constant(b)).reshape(-1, 2, rows // shape_of(w)[0])
    return weight, np.ascontiguousarray(halves.transpose(1, 0, 2).reshape(2, rows))


def _directions_first(builder: relax.BlockBuilder, state: Any) -> Any:
    """A state [batch, directions, hidden] of a layer whose batch comes first."""
    return None if state is None else builder.emit(relax.op.permute_dims(state, [1, 0, 2]))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def converters() -> dict[str, Callable[..., Any]]:
    """ONNX operator -> a function of (builder, inputs, attributes)."""

    def of(cell: str) -> Callable[..., Any]:
        return lambda builder, inputs, attrs: recurrent_layer(builder, cell, inputs, attrs)

    return {cell.upper(): of(cell) for cell in GATES}
