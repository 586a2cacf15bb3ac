"""Recurrent layers in float32: what the importer makes of LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm.script.ir_builder import tirx as T

from hwptq.ir.real_operator import RealOperator
from hwptq.tir.builder import Expr, Flat, constant
from hwptq.tir.kernel import TensorType
from hwptq.tir.recurrent_loops import emit_recurrence
from hwptq.tir.recurrent_states import Recurrence, States


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
            emit_recurrence(form, _Reals(form, (x, weight, bias), (hidden, cell), y), lengths)

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


class _Reals(States):
    """In float32."""

    ops = _RealGates()

    def __init__(
        self, form: Recurrence, tensors: Sequence[Flat], given: Sequence[Flat | None], y: Flat
    ):  # fmt: skip
        super().__init__(form, tensors, given, held="float32", read="float32")
        self.y = y

    def first(self, given: Expr | None, which: int) -> Expr:
        return constant(0.0, "float32") if given is None else given

    def term(self, a: Expr, b: Expr) -> Expr:
        return a * b

    def summed(self, acc: Expr, row: Expr) -> Expr:
        return acc

    def code(self, state: Expr) -> Expr:
        return state

    def write(self, at: Expr, unit: Expr, what: str) -> None:
        found = {"hidden": self.states, "cell": self.cells}.get(what)
        self.y.store(at, found.load(unit) if found else constant(0.0, "float32"))
