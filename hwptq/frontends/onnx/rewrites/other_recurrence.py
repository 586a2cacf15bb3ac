"""Recurrent layers whose gates have other functions, bounds or peepholes, written step by step.

What most layers ask for is one operator (recurrent_layers.py), by tables that no data changes. A relu has no
bounds, and hardly a model asks for the rest; so each step becomes products and functions, which have scales
of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .parts import Parts, given, made
from .surroundings import Surroundings, attribute

_MOST_STEPS = 128  # in all directions
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
#: The parameters of functions, with their defaults.
_PARAMETERS = {
    "Affine": {"alpha": 1.0, "beta": 0.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "LeakyRelu": {"alpha": 0.01},
    "ScaledTanh": {"alpha": 1.0, "beta": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
}
_PLAIN = ("Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")

_Function = Callable[[str], str]


def other_recurrence(around: Surroundings, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Y [steps, directions, batch, hidden], Y_h and, of an LSTM, Y_c; None where one operator does it.

    Raises UnsupportedError for unknown functions, for computed weights, and for more steps than can be
    written.
    """
    cell, lengths = node.op_type, given(node, 4)
    peepholes = around.constant(given(node, 7)) if given(node, 7) else None
    functions = [
        str(f, "utf-8") if isinstance(f, bytes) else str(f) for f in attribute(node, "activations", [])
    ]
    backwards = _BACKWARDS[attribute(node, "direction", "forward")]
    usual = [f.lower() for f in functions] in ([], [f.lower() for f in _USUAL[cell] * len(backwards)])
    bounded = attribute(node, "clip", 0.0) or attribute(node, "input_forget", 0)
    if usual and not bounded and (peepholes is None or not peepholes.any()):
        return None
    shape, numbers = around.shape(node.input[0]), filter(None, (given(node, i) for i in (1, 2, 3, 7)))
    if shape is None or lengths:
        return None  # refused by the importer
    if any(around.constant(name) is None for name in numbers):
        raise UnsupportedError(
            f"node {node.name!r} ({cell}): its weights, biases or peepholes are computed; they must be "
            "constants of the file"
        )
    batch_first = bool(attribute(node, "layout", 0))
    steps = shape[1 if batch_first else 0]
    if steps * len(backwards) > _MOST_STEPS:
        raise UnsupportedError(
            f"node {node.name!r} ({cell}): its gates have other functions than most layers, and its {steps} "
            f"steps are too many to write one by one; export it with sigmoid and tanh, or shorter sequences"
        )
    parts = Parts(around, node)
    applied = _functions(parts, functions or _USUAL[cell] * len(backwards))
    each = len(_USUAL[cell])
    layer = _Layer(parts, cell, steps, batch_first)
    results = [
        layer.direction(d, back, applied[each * d : each * (d + 1)], peepholes)
        for d, back in enumerate(backwards)
    ]
    layer.write(results)
    return parts.nodes


def _functions(parts: Parts, names: Sequence[str]) -> list[_Function]:
    """Each takes the name of a tensor, and gives that of its result."""
    left = {p: list(attribute(parts.node, f"activation_{p}", [])) for p in ("alpha", "beta")}
    known = {name.lower(): name for name in (*_PLAIN, *_PARAMETERS)}
    found = []
    for name in names:
        op = known.get(name.lower())
        if op is None:
            where = f"node {parts.node.name!r} ({parts.node.op_type})"
            raise UnsupportedError(f"{where}: the function {name!r} of its gates is not supported")
        values = {p: left[p].pop(0) if left[p] else v for p, v in _PARAMETERS.get(op, {}).items()}
        found.append(_function(parts, op, values))
    return found


def _function(parts: Parts, op: str, values: dict[str, Any]) -> _Function:
    if op in ("Affine", "ScaledTanh"):
        slope, other = (parts.constant(values[p]) for p in ("alpha", "beta"))
        if op == "Affine":
            return lambda x: parts.op("Add", [parts.op("Mul", [x, slope]), other])
        return lambda x: parts.op("Mul", [parts.op("Tanh", [parts.op("Mul", [x, other])]), slope])
    return lambda x: parts.op(op, [x], **values)


@dataclass(frozen=True)
class _Layer:
    parts: Parts
    cell: str
    steps: int
    batch_first: bool

    def direction(
        self, d: int, backwards: bool, functions: Sequence[_Function], peepholes: np.ndarray | None
    ) -> tuple[list[str], str, str]:
        """(the hidden states [batch, hidden] of all steps, the last one, the last cell or "")."""
        parts, around, node = self.parts, self.parts.around, self.parts.node
        w, r = (np.asarray(around.constant(node.input[i]))[d] for i in (1, 2))
        hidden, gates = r.shape[1], _GATES[self.cell]
        bias = around.constant(given(node, 3)) if given(node, 3) else None
        wb, rb = np.zeros((2, gates * hidden), np.float32) if bias is None else bias[d].reshape(2, -1)
        after = bool(attribute(node, "linear_before_reset", 0))
        if not (self.cell == "GRU" and after):
            wb, rb = wb + rb, np.zeros_like(rb)
        x = parts.op("Add", [parts.op("MatMul", [node.input[0], parts.constant(w.T)]), parts.constant(wb)])
        state, memory = self._first(5, d, hidden), self._first(6, d, hidden) if self.cell == "LSTM" else ""
        holes = None if peepholes is None else peepholes[d].reshape(3, hidden)
        step = _Step(parts, hidden, r, rb, after, functions, holes)
        found: list[str] = []
        for t in reversed(range(self.steps)) if backwards else range(self.steps):
            row = parts.op("Gather", [x, parts.constant(t, np.int64)], axis=int(self.batch_first))
            if self.cell == "LSTM":
                state, memory = step.lstm(row, state, memory)
            else:
                state = step.gru(row, state) if self.cell == "GRU" else step.rnn(row, state)
            found.append(state)
        return found[::-1] if backwards else found, state, memory

    def _first(self, index: int, d: int, hidden: int) -> str:
        """The state [batch, hidden] before the first step."""
        parts, name = self.parts, given(self.parts.node, index)
        if not name:
            return parts.constant(np.zeros((1, hidden)))
        return parts.op("Gather", [name, parts.constant(d, np.int64)], axis=int(self.batch_first))

    def write(self, results: Sequence[tuple[list[str], str, str]]) -> None:
        """The outputs of the node, from those of each direction."""
        parts, node = self.parts, self.parts.node
        axis = 1 if self.batch_first else 0
        if made(node, 0):
            times = [
                parts.op("Concat", [parts.unsqueezed(h, axis) for h in every], axis=axis)
                for every, *_ in results
            ]
            place = 2 if self.batch_first else 1
            parts.op("Concat", [parts.unsqueezed(t, place) for t in times], node.output[0], axis=place)
        lasts = [last for _, last, _ in results], [memory for *_, memory in results]
        for index, each in enumerate(lasts, 1):
            if made(node, index):
                ends = [parts.unsqueezed(last, axis) for last in each]
                parts.op("Concat", ends, node.output[index], axis=axis)


@dataclass(frozen=True)
class _Step:
    """One step of a direction. r, rb: weights [gates x hidden, hidden] of the state, and their bias, in the
    order of ONNX; after: of a GRU, whether the reset gate comes behind the product."""

    parts: Parts
    hidden: int
    r: np.ndarray
    rb: np.ndarray
    after: bool
    functions: Sequence[_Function]
    peepholes: np.ndarray | None

    def rnn(self, x: str, state: str) -> str:
        return self.functions[0](self._total(x, self._product(state, 0, 1)))

    def gru(self, x: str, state: str) -> str:
        """z h + (1 - z) n."""
        op, (f, g) = self.parts.op, self.functions
        both = self._total(self._gate(x, 0, 2), self._product(state, 0, 2))
        both = f(both)
        z, r = self._gate(both, 0), self._gate(both, 1)
        if self.after:
            new = op("Mul", [r, self._product(state, 2, 3)])
        else:
            new = self._product(op("Mul", [r, state]), 2, 3)
        n = g(self._total(self._gate(x, 2), new))
        rest = op("Sub", [self.parts.constant(1.0), z])
        return op("Add", [op("Mul", [z, state]), op("Mul", [rest, n])])

    def lstm(self, x: str, state: str, memory: str) -> tuple[str, str]:
        """(o h(c), c) with c = f c + i g."""
        op, (f, g, h) = self.parts.op, self.functions
        every = op("Add", [x, self._product(state, 0, 4)])
        i, o, forget, new = (self._gate(every, n) for n in range(4))
        i = f(self._bounded(self._seen(i, 0, memory)))
        if attribute(self.parts.node, "input_forget", 0):
            forget = op("Sub", [self.parts.constant(1.0), i])
        else:
            forget = f(self._bounded(self._seen(forget, 2, memory)))
        memory = op("Add", [op("Mul", [forget, memory]), op("Mul", [i, g(self._bounded(new))])])
        return op("Mul", [f(self._bounded(self._seen(o, 1, memory))), h(memory)]), memory

    def _product(self, state: str, first: int, last: int) -> str:
        """Of the state and the weights of gates `first` up to `last`, with their bias."""
        parts, rows = self.parts, slice(first * self.hidden, last * self.hidden)
        product = parts.op("MatMul", [state, parts.constant(self.r[rows].T)])
        return parts.op("Add", [product, parts.constant(self.rb[rows])]) if self.rb[rows].any() else product

    def _total(self, x: str, h: str) -> str:
        return self._bounded(self.parts.op("Add", [x, h]))

    def _seen(self, x: str, hole: int, memory: str) -> str:
        """With what a gate sees of the cell."""
        if self.peepholes is None:
            return x
        weight = self.parts.constant(self.peepholes[hole])
        return self.parts.op("Add", [x, self.parts.op("Mul", [weight, memory])])

    def _bounded(self, x: str) -> str:
        bound = float(attribute(self.parts.node, "clip", 0.0))
        if not bound:
            return x
        return self.parts.op("Clip", [x, self.parts.constant(-bound), self.parts.constant(bound)])

    def _gate(self, x: str, first: int, last: int = 0) -> str:
        return self.parts.sliced(x, 1, first * self.hidden, (last or first + 1) * self.hidden)
