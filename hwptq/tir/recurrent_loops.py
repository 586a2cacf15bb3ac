"""The loops of a recurrent layer over directions, sequences and steps; `States` computes a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm.script.ir_builder import tirx as T

from hwptq.quant.recurrence import gru, lstm, reset_gate, rnn

from .builder import Expr, Flat, loop
from .recurrent_states import Recurrence, States


def emit_recurrence(form: Recurrence, states: States, lengths: Flat | None) -> None:
    """Code of all steps. lengths: of the sequences, int32 [batch]; None: all are as long as can be."""
    for direction, backwards in enumerate(form.backwards):

        def sequence(b: Expr, direction: int = direction, backwards: bool = backwards) -> None:
            states.begin(direction, b)
            count: Expr = form.steps
            if lengths is not None:
                count = T.bind(T.max(T.min(lengths.load(b), form.steps), 0))

            def step(s: Expr) -> None:
                t = count - 1 - s if backwards else s
                source = (t * form.batch + b) * form.inputs
                _step(form, states, direction, source)
                _written(form, states, form.offset(t, direction, b), "hidden")

            def one(s: Expr) -> None:
                if lengths is None:
                    step(s)
                    return
                with T.If(s < count):
                    with T.Then():
                        step(s)
                    with T.Else():
                        _written(form, states, form.offset(s, direction, b), "nothing")

            loop(form.steps, one)
            for row, what in list(enumerate(("hidden", "cell")))[: form.last]:
                _written(form, states, form.offset(form.steps + row, direction, b), what)

        loop(form.batch, sequence)


def _written(form: Recurrence, states: States, at: Expr, what: str) -> None:
    loop(form.hidden, lambda unit: states.write(at + unit, unit, what))


def _step(form: Recurrence, a: States, direction: int, source: Expr) -> None:
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


def _gates(form: Recurrence, a: States, unit: Expr, count: int) -> tuple[list[Expr], list[Expr]]:
    x, h = ([a.gate(g, unit, state) for g in range(count)] for state in (False, True))
    return x, h


def _next(form: Recurrence, a: States, unit: Expr) -> Sequence[Any]:
    """(hidden, cell or None) of a unit."""
    x, h = _gates(form, a, unit, form.gates)
    if form.cell == "lstm":
        return lstm(a.ops, x, h, a.cell(unit))
    if form.cell == "rnn":
        return rnn(a.ops, x, h), None
    reset = reset_gate(a.ops, x, h) if form.reset_after else None
    return gru(a.ops, x, h, reset, a.hidden(unit)), None
