"""What a recurrent layer computes with, in any arithmetic: states and gates of a sequence, in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwptq.quant.recurrence import GATES

from .builder import Expr, Flat, local, loop, workspace


@dataclass(frozen=True)
class Recurrence:
    """A layer: the kind of its cell, its sizes, its directions, and what stands behind the states.

    Its result is [steps + last, directions, batch, hidden]: the hidden states, zeros behind the end of a
    sequence; then the last hidden states where `last` is 1 or 2, and the last cells where it is 2.
    """

    cell: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    backwards: tuple[bool, ...]
    reset_after: bool  # of a GRU: linear_before_reset
    last: int

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.steps + self.last, len(self.backwards), self.batch, self.hidden

    @property
    def macs(self) -> int:
        """Of all steps."""
        rows = len(self.backwards) * self.gates * self.hidden
        return self.steps * self.batch * rows * (self.inputs + self.hidden)

    def offset(self, row: Expr, direction: int, sequence: Expr) -> Expr:
        """Of the first unit in the result."""
        return ((row * len(self.backwards) + direction) * self.batch + sequence) * self.hidden


class States(ABC):
    """The states of a sequence in one direction, and its gates, in the dtype `held`; products read it in
    `read`. tensors: x, weight and bias of the layer; given: first hidden states and cells, None for zeros.
    """

    #: What the formulas of quant/recurrence.py compute with.
    ops: Any

    def __init__(
        self, form: Recurrence, tensors: Sequence[Flat], given: Sequence[Flat | None], held: str, read: str
    ):
        self.form, self.held, self._given = form, held, tuple(given)
        self.x, self.weight, self.bias = tensors
        self.states, self.cells = (workspace(form.hidden, held) for _ in range(2))
        self._read = workspace(form.hidden, read)
        self._gates = [workspace(form.gates * form.hidden, held) for _ in range(2)]

    @abstractmethod
    def first(self, given: Expr | None, which: int) -> Expr:
        """A hidden state (0) or a cell (1) as it is held, of a float32; None: 0."""

    @abstractmethod
    def term(self, a: Expr, b: Expr) -> Expr:
        """A product, as it is held."""

    @abstractmethod
    def summed(self, acc: Expr, row: Expr) -> Expr:
        """What a sum of products gives its gate; `row`: that of bias, and of what goes with it."""

    @abstractmethod
    def code(self, state: Expr) -> Expr:
        """A hidden state as products read it."""

    @abstractmethod
    def write(self, at: Expr, unit: Expr, what: str) -> None:
        """Into the result: the "hidden" state or the "cell" of a unit, or "nothing"."""

    def begin(self, direction: int, sequence: Expr) -> None:
        """The states before the first step."""
        start = (direction * self.form.batch + sequence) * self.form.hidden

        def unit(i: Expr) -> None:
            for which, (memory, given) in enumerate(zip((self.states, self.cells), self._given, strict=True)):
                memory.store(i, self.first(given.load(start + i) if given else None, which))

        loop(self.form.hidden, unit)
        self.turn()

    def multiply(self, direction: int, x: Expr, rows: tuple[int, int], state: bool) -> None:
        """What gates `rows` get from the input at offset x, or from the `state`."""
        form = self.form
        first, source, start = (form.inputs, self._read, 0) if state else (0, self.x, x)
        depth, every = (form.hidden if state else form.inputs), form.gates * form.hidden
        part = (int(state) * len(form.backwards) + direction) * every

        def row(i: Expr) -> None:
            at = rows[0] * form.hidden + i
            acc = local(1, self.held)
            acc.store(0, self.bias.load(part + at))
            line = (direction * every + at) * (form.inputs + form.hidden) + first

            def add(k: Expr) -> None:
                acc.store(0, acc.load(0) + self.term(source.load(start + k), self.weight.load(line + k)))

            loop(depth, add)
            self._gates[state].store(at, self.summed(acc.load(0), part + at))

        loop((rows[1] - rows[0]) * form.hidden, row)

    def gate(self, gate: int, unit: Expr, state: bool) -> Expr:
        """What a gate of a unit got from the input, or from the state."""
        return self._gates[state].load(gate * self.form.hidden + unit)

    def hidden(self, unit: Expr) -> Expr:
        return self.states.load(unit)

    def cell(self, unit: Expr) -> Expr:
        return self.cells.load(unit)

    def reset(self, unit: Expr, value: Expr) -> None:
        """Let products read `value` in place of the state, until the next turn."""
        self._read.store(unit, self.code(value))

    def keep(self, unit: Expr, hidden: Expr, cell: Expr | None) -> None:
        """The next state of a unit; the gates of all have been computed from the old ones."""
        self.states.store(unit, hidden)
        if cell is not None:
            self.cells.store(unit, cell)

    def turn(self) -> None:
        """What was kept is what products read."""
        loop(self.form.hidden, lambda unit: self.reset(unit, self.states.load(unit)))
