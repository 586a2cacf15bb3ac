"""The loops of a recurrent layer over directions, sequences and steps; an `Arithmetic` computes a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from hwptq.quant.recurrence import GATES, gru, lstm, reset_gate, rnn

from .builder import Expr, Flat, loop


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


class Arithmetic(Protocol):
    """What is computed with: memory of the states of one sequence in one direction, and the gates."""

    ops: Any

    def begin(self, direction: int, sequence: Expr) -> None:
        """The states before the first step."""

    def multiply(self, direction: int, x: Expr, rows: tuple[int, int], state: bool) -> None:
        """What gates `rows` get from the input at offset x, or from the `state`."""

    def gate(self, gate: int, unit: Expr, state: bool) -> Expr:
        """What a gate of a unit got from the input, or from the state."""

    def hidden(self, unit: Expr) -> Expr: ...

    def cell(self, unit: Expr) -> Expr: ...

    def reset(self, unit: Expr, value: Expr) -> None:
        """Let products read `value` in place of the state, until it is next set."""

    def keep(self, unit: Expr, hidden: Expr, cell: Expr | None) -> None:
        """The next state of a unit; others are still computed from the old ones."""

    def turn(self) -> None:
        """What was kept becomes the state."""

    def write(self, at: Expr, unit: Expr, what: str) -> None:
        """Into the result: the "hidden" state or the "cell" of a unit, or "nothing"."""


def emit_recurrence(form: Recurrence, arithmetic: Arithmetic, lengths: Flat | None) -> None:
    """Code of all steps. lengths: of the sequences, int32 [batch]; None: all are as long as can be."""
    for direction, backwards in enumerate(form.backwards):

        def sequence(b: Expr, direction: int = direction, backwards: bool = backwards) -> None:
            arithmetic.begin(direction, b)
            count: Expr = form.steps
            if lengths is not None:
                count = T.bind(T.max(T.min(lengths.load(b), form.steps), 0))

            def step(s: Expr) -> None:
                t = count - 1 - s if backwards else s
                source = (t * form.batch + b) * form.inputs
                _step(form, arithmetic, direction, source)
                _written(form, arithmetic, form.offset(t, direction, b), "hidden")

            def one(s: Expr) -> None:
                if lengths is None:
                    step(s)
                    return
                with T.If(s < count):
                    with T.Then():
                        step(s)
                    with T.Else():
                        _written(form, arithmetic, form.offset(s, direction, b), "nothing")

            loop(form.steps, one)
            for row, what in list(enumerate(("hidden", "cell")))[: form.last]:
                _written(form, arithmetic, form.offset(form.steps + row, direction, b), what)

        loop(form.batch, sequence)


def _written(form: Recurrence, arithmetic: Arithmetic, at: Expr, what: str) -> None:
    loop(form.hidden, lambda unit: arithmetic.write(at + unit, unit, what))


def _step(form: Recurrence, a: Arithmetic, direction: int, source: Expr) -> None:
    """The next states of all units."""
    every, early = (0, form.gates), form.cell == "gru" and not form.reset_after
    a.multiply(direction, source, every, False)
    a.multiply(direction, source, (0, 2) if early else every, True)
    if early:

        def reset(unit: Expr) -> None:
            a.reset(unit, a.ops.times(reset_gate(a.ops, *_gates(form, a, unit, 2)), a.hidden(unit)))

        loop(form.hidden, reset)
        a.multiply(direction, source, (2, 3), True)
    loop(form.hidden, lambda unit: a.keep(unit, *_next(form, a, unit)))
    a.turn()


def _gates(form: Recurrence, a: Arithmetic, unit: Expr, count: int) -> tuple[list[Expr], list[Expr]]:
    x, h = ([a.gate(g, unit, state) for g in range(count)] for state in (False, True))
    return x, h


def _next(form: Recurrence, a: Arithmetic, unit: Expr) -> Sequence[Any]:
    """(hidden, cell or None) of a unit."""
    x, h = _gates(form, a, unit, form.gates)
    if form.cell == "lstm":
        return lstm(a.ops, x, h, a.cell(unit))
    if form.cell == "rnn":
        return rnn(a.ops, x, h), None
    reset = reset_gate(a.ops, x, h) if form.reset_after else None
    return gru(a.ops, x, h, reset, a.hidden(unit)), None
