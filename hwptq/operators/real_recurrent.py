"""Recurrent layers in float32: what the importer makes of LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from hwptq.ir.real_operator import RealOperator
from hwptq.tir.builder import Expr, Flat, constant, local, loop, workspace
from hwptq.tir.kernel import TensorType
from hwptq.tir.recurrent_loops import Recurrence, emit_recurrence


@dataclass(frozen=True)
class RealRecurrent(RealOperator):
    """(x [steps,batch,I], lengths int32 [batch]?, hidden [D,batch,H]?, cell [D,batch,H]?,
    weight [D*G*H, I+H], bias [2, D*G*H]) -> float32 [steps + last, D, batch, H]: see Recurrence.

    Rows of the weight are those of ONNX's W and R side by side, bias holds Wb and Rb; gates in ONNX's order.
    lengths, initial_hidden, initial_cell: which tensors it takes; states are 0 where they are not given.
    """

    kind: ClassVar[str] = "recurrent"
    cell: str
    backwards: tuple[bool, ...]
    reset_after: bool
    last: int
    lengths: bool
    initial_hidden: bool
    initial_cell: bool

    def form(self, x: Sequence[int], out: Sequence[int]) -> Recurrence:
        """The sizes, by the shapes of x and of the result."""
        steps, batch, inputs = x
        return Recurrence(
            self.cell, steps, batch, inputs, out[3], tuple(self.backwards), self.reset_after, self.last
        )

    def macs(self, inputs: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
        return self.form(inputs[0], out).macs

    def emit(self, inputs: Sequence[TensorType], out: TensorType) -> Callable[..., None]:
        form = self.form(inputs[0].shape, out.shape)

        def emit(x: Flat, *rest: Flat) -> None:
            *given, weight, bias, y = rest
            lengths, hidden, cell = optional(given, (self.lengths, self.initial_hidden, self.initial_cell))
            emit_recurrence(form, _Reals(form, (x, weight, bias, y), hidden, cell), lengths)

        return emit


def optional(given: Sequence[Any], present: Sequence[bool]) -> list[Any]:
    """The tensors that are given, in their places."""
    left = list(given)
    return [left.pop(0) if there else None for there in present]


class _RealGates:
    """The operations on float32."""

    def total(self, x: Expr, h: Expr) -> Expr:
        return T.bind(x + h)

    def sigmoid(self, x: Expr) -> Expr:
        one = constant(1.0, "float32")
        return T.bind(one / (one + T.exp(constant(0.0, "float32") - x)))

    def tanh(self, x: Expr) -> Expr:
        return T.bind(T.tanh(x))

    def times(self, gate: Expr, x: Expr) -> Expr:
        return T.bind(gate * x)

    into_cell = times

    def cell(self, kept: Expr, added: Expr) -> Expr:
        return T.bind(kept + added)

    def of_cell(self, cell: Expr) -> Expr:
        return cell

    def blend(self, gate: Expr, old: Expr, new: Expr) -> Expr:
        return T.bind(gate * old + (constant(1.0, "float32") - gate) * new)


class _Reals:
    """States and gates of one sequence in float32."""

    ops = _RealGates()

    def __init__(
        self, form: Recurrence, tensors: tuple[Flat, Flat, Flat, Flat], hidden: Flat | None, cell: Flat | None
    ):
        self.form, self.first_hidden, self.first_cell = form, hidden, cell
        self.x, self.weight, self.bias, self.y = tensors
        rows = form.gates * form.hidden
        self.states = workspace(form.hidden, "float32")
        self.read = workspace(form.hidden, "float32")  # what products read
        self.cells = workspace(form.hidden, "float32")
        self.gates = [workspace(rows, "float32") for _ in range(2)]

    def begin(self, direction: int, sequence: Expr) -> None:
        first = (direction * self.form.batch + sequence) * self.form.hidden

        def start(unit: Expr) -> None:
            for memory, given in ((self.states, self.first_hidden), (self.cells, self.first_cell)):
                memory.store(unit, given.load(first + unit) if given else constant(0.0, "float32"))

        loop(self.form.hidden, start)
        self.turn()

    def multiply(self, direction: int, x: Expr, rows: tuple[int, int], state: bool) -> None:
        form = self.form
        first, source, start = (form.inputs, self.read, 0) if state else (0, self.x, x)
        depth, every = (form.hidden if state else form.inputs), form.gates * form.hidden

        def row(number: Expr) -> None:
            at = rows[0] * form.hidden + number
            acc = local(1, "float32")
            acc.store(0, self.bias.load((int(state) * len(form.backwards) + direction) * every + at))
            line = (direction * every + at) * (form.inputs + form.hidden) + first

            def add(i: Expr) -> None:
                acc.store(0, acc.load(0) + source.load(start + i) * self.weight.load(line + i))

            loop(depth, add)
            self.gates[state].store(at, acc.load(0))

        loop((rows[1] - rows[0]) * form.hidden, row)

    def gate(self, gate: int, unit: Expr, state: bool) -> Expr:
        return self.gates[state].load(gate * self.form.hidden + unit)

    def hidden(self, unit: Expr) -> Expr:
        return self.states.load(unit)

    def cell(self, unit: Expr) -> Expr:
        return self.cells.load(unit)

    def reset(self, unit: Expr, value: Expr) -> None:
        self.read.store(unit, value)

    def keep(self, unit: Expr, hidden: Expr, cell: Expr | None) -> None:
        self.states.store(unit, hidden)
        if cell is not None:
            self.cells.store(unit, cell)

    def turn(self) -> None:
        loop(self.form.hidden, lambda unit: self.read.store(unit, self.states.load(unit)))

    def write(self, at: Expr, unit: Expr, what: str) -> None:
        found = {"hidden": self.states, "cell": self.cells}.get(what)
        self.y.store(at, found.load(unit) if found else constant(0.0, "float32"))
