"""Recurrent layers in integers: LSTM, GRU and RNN with int8 weights, the arithmetic of quant/gates.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import tvm
from tvm.script.ir_builder import tirx as T

from hwptq.formats import INT8, INT16, Format
from hwptq.ir.dataflow import constant, shape_of
from hwptq.ir.operator import WeightedOperator
from hwptq.ir.real_operator import real_operator
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.lowering.rules import lowers
from hwptq.quant.gates import (
    CELL_BITS,
    CODE_BITS,
    GATE_BITS,
    STATE_BITS,
    ArrayGates,
    from_real,
    gate_table,
    multiplier_and_shift,
    scaled,
    state_codes,
)
from hwptq.quant.recurrence import gru, lstm, reset_gate, rnn
from hwptq.quant.row_codes import row_codes
from hwptq.tir import gates as tir
from hwptq.tir.builder import Expr, Flat, cast, clamp
from hwptq.tir.builder import constant as constant_of
from hwptq.tir.kernel import TensorType
from hwptq.tir.recurrent_loops import emit_recurrence
from hwptq.tir.recurrent_states import Recurrence, States
from hwptq.tir.vector_unit import VectorUnit

from .real_recurrent import RealRecurrent, optional

_SUM_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class Recurrent(WeightedOperator):
    """(x [steps,batch,I], lengths int32 [batch]?, hidden float32 [D,batch,H]?, cell float32 [D,batch,H]?,
    weight int8 [D*G*H, I+H], bias int32 [2, D*G*H], multiplier int32 [2, D*G*H], shift int32 [2, D*G*H],
    sigmoid int16 [1025], tanh int16 [1025]) -> [steps + last, D, batch, H]: see Recurrence for the result.

    The fields up to initial_cell as in RealRecurrent. Sums over x and over the state (bias, multiplier and
    shift 0 and 1) come to a part of the pre-activation each; y = scaled(state or cell, …) + out_zero_point.
    state_bits: of the state that products read, 8 or 16.
    """

    kind: ClassVar[str] = "recurrent"
    cell: str
    backwards: tuple[bool, ...]
    reset_after: bool
    last: int
    lengths: bool
    initial_hidden: bool
    initial_cell: bool
    hidden_factor: tuple[int, int]
    cell_factor: tuple[int, int]
    out_zero_point: int
    lo: int
    hi: int
    out: str = "int8"
    state_bits: int = 8
    weight_bits: int = 8
    activation_bits: int = 8

    @property
    def activations(self) -> int:
        return 1 + self.lengths + self.initial_hidden + self.initial_cell

    def form(self, x: Sequence[int], out: Sequence[int]) -> Recurrence:
        """The sizes, by the shapes of x and of the result."""
        steps, batch, inputs = x
        return Recurrence(
            self.cell, steps, batch, inputs, out[3], tuple(self.backwards), self.reset_after, self.last
        )

    def macs(self, inputs: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
        return self.form(inputs[0], out).macs

    def element_by_element(self, unit: VectorUnit) -> bool:
        return True

    def reference(self, x, *rest) -> np.ndarray:
        *given, weight, bias, multiplier, shift, sigmoid, tanh = rest
        present = (self.lengths, self.initial_hidden, self.initial_cell)
        lengths, hidden, cell = optional(given, present)
        directions = len(self.backwards)
        units = (weight.shape[1] - x.shape[2], weight.shape[0] // directions)
        form = self.form(x.shape, (0, 0, 0, units[0]))
        out = np.zeros(form.shape, np.int64)
        out[...] = self.out_zero_point
        ends = np.full(form.batch, form.steps) if lengths is None else np.clip(lengths, 0, form.steps)
        for d in range(directions):
            rows = slice(d * units[1], (d + 1) * units[1])
            layer = _Arrays(form, self, weight[rows], bias[:, rows], multiplier[:, rows], shift[:, rows])
            layer.ops = ArrayGates(sigmoid, tanh)
            for b in range(form.batch):
                layer.begin(*(None if s is None else s[d, b] for s in (hidden, cell)))
                times = range(int(ends[b]))
                for t in reversed(times) if self.backwards[d] else times:
                    layer.step(x[t, b])
                    out[t, d, b] = layer.result("hidden")
                for row, what in list(enumerate(("hidden", "cell")))[: self.last]:
                    out[form.steps + row, d, b] = layer.result(what)
        return out.astype(self.out)

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        """Dot products of contiguous rows, 32 bits; the gates one unit at a time."""
        form = self.form(inputs[0].shape, out.shape)

        def emit(x: Flat, *rest: Flat) -> None:
            *given, weight, bias, multiplier, shift, sigmoid, tanh, y = rest
            present = (self.lengths, self.initial_hidden, self.initial_cell)
            lengths, hidden, cell = optional(given, present)
            code = _Codes(
                self, form, (x, weight, bias), (hidden, cell), (multiplier, shift),
                tir.IntegerGates(sigmoid, tanh), y,
            )  # fmt: skip
            emit_recurrence(form, code, lengths)

        return emit


class _Arrays:
    """States and gates of one sequence in one direction, on arrays."""

    ops: ArrayGates

    def __init__(self, form: Recurrence, op: Recurrent, weight: Any, bias: Any, multiplier: Any, shift: Any):
        self.form, self.op = form, op
        wide = weight.astype(np.int64)
        self.weights = wide[:, : form.inputs], wide[:, form.inputs :]
        self.bias, self.multiplier, self.shift = bias, multiplier, shift

    def begin(self, hidden: np.ndarray | None, cell: np.ndarray | None) -> None:
        zeros = np.zeros(self.form.hidden, np.int64)
        self.hidden = zeros if hidden is None else from_real(hidden, STATE_BITS)
        self.cell = zeros if cell is None else from_real(cell, CELL_BITS)

    def step(self, x: np.ndarray) -> None:
        a, kind = self.ops, self.form.cell
        of_x, of_h = self._product(0, x.astype(np.int64)), self._product(1, self._codes(self.hidden))
        if kind == "lstm":
            self.hidden, self.cell = lstm(a, of_x, of_h, self.cell)
        elif kind == "rnn":
            self.hidden = rnn(a, of_x, of_h)
        else:
            reset = reset_gate(a, of_x, of_h)
            if not self.form.reset_after:
                of_h[2] = self._product(1, self._codes(a.times(reset, self.hidden)))[2]
            self.hidden = gru(a, of_x, of_h, reset if self.form.reset_after else None, self.hidden)

    def result(self, what: str) -> np.ndarray:
        op = self.op
        state, factor = (self.hidden, op.hidden_factor) if what == "hidden" else (self.cell, op.cell_factor)
        return np.clip(scaled(state, *factor) + op.out_zero_point, op.lo, op.hi)

    def _codes(self, state: np.ndarray) -> np.ndarray:
        return state_codes(state) if self.op.state_bits == 8 else state

    def _product(self, which: int, values: np.ndarray) -> list[Any]:
        acc = self.weights[which] @ values + self.bias[which]
        return list(scaled(acc, self.multiplier[which], self.shift[which]).reshape(self.form.gates, -1))


class _Codes(States):
    """In int32; products read int8 or int16. factors: multipliers and shifts of the sums."""

    def __init__(
        self, op: Recurrent, form: Recurrence, tensors: Sequence[Flat], given: Sequence[Flat | None],
        factors: Sequence[Flat], ops: tir.IntegerGates, y: Flat,
    ):  # fmt: skip
        super().__init__(form, tensors, given, held="int32", read="int8" if op.state_bits == 8 else "int16")
        self.op, self.factors, self.ops, self.y = op, tuple(factors), ops, y

    def first(self, given: Expr | None, which: int) -> Expr:
        return _int(0) if given is None else tir.from_real(given, (STATE_BITS, CELL_BITS)[which])

    def term(self, a: Expr, b: Expr) -> Expr:
        return cast(a, self.held) * cast(b, self.held)

    def summed(self, acc: Expr, row: Expr) -> Expr:
        return tir.scaled(acc, *(factor.load(row) for factor in self.factors))

    def code(self, state: Expr) -> Expr:
        if self.op.state_bits > 8:
            return cast(state, "int16")
        rounded = T.bind(T.shift_right(state + _int(128), _int(8)))
        return cast(clamp(rounded, _int(-128), _int(127)), "int8")

    def write(self, at: Expr, unit: Expr, what: str) -> None:
        op, zero = self.op, _int(self.op.out_zero_point)
        if what == "nothing":
            self.y.store(at, cast(zero, op.out))
            return
        state, factor = (self.states, op.hidden_factor) if what == "hidden" else (self.cells, op.cell_factor)
        value = T.bind(tir.scaled(state.load(unit), *map(_int, factor)) + zero)
        self.y.store(at, cast(clamp(value, _int(op.lo), _int(op.hi)), op.out))


def _int(value: int) -> Expr:
    return constant_of(value, "int32")


def _range(mod: tvm.IRModule, call: Any) -> tuple[float, float]:
    """A hidden state lies within ±1, a cell within the range of its code."""
    reach = 2.0 ** (15 - CELL_BITS)
    op = real_operator(mod, call)
    assert isinstance(op, RealRecurrent)
    return (-reach, reach) if op.last == 2 else (-1.0, 1.0 - 2.0**-CODE_BITS)


def _format(mod: tvm.IRModule, call: Any) -> Format | None:
    """Cells that are read need more than 8 bits: they are fed back."""
    op = real_operator(mod, call)
    assert isinstance(op, RealRecurrent)
    return INT16 if op.last == 2 else None


def _real_operands(mod: tvm.IRModule, call: Any) -> list[Any]:
    """All but the input: lengths, and states that are read in their own steps."""
    return list(call.args[1].fields)[1:]


@lowers(
    "real.recurrent", family="recurrent", makes=(Recurrent,), everywhere=True, output_range=_range,
    output_format=_format, real_operands=_real_operands,
)  # fmt: skip
def lower_recurrent(e: Emitter, call: Any, out: Output) -> Any:
    """In integers where its input is."""
    real, (first, *others) = real_operator(e.mod, call), list(call.args[1].fields)
    assert isinstance(real, RealRecurrent)
    x = e.operand(first)
    if out.in_floats or out.real or x.is_constant or x.format.is_float:
        raise NotInteger(f"a {real.cell.upper()} on floats")
    *given, weight, bias = others
    constants = _constants(real.form(x.shape, shape_of(call)), x, constant(weight), constant(bias))
    factors = [_factor(2.0**-bits / out.scale) for bits in (STATE_BITS, CELL_BITS)]
    limits = out.code_bounds()
    op = Recurrent(
        **asdict(real), hidden_factor=factors[0], cell_factor=factors[1], out_zero_point=out.zero,
        lo=limits[0], hi=limits[1], out=out.dtype,
        state_bits=8 if x.bits <= 8 else 16, activation_bits=x.bits,
    )  # fmt: skip
    tensors = [x.tensor, *(e.r.get(t) for t in given)]
    return e.call(op, tensors, constants, shape_of(call), out.dtype, out.tensor)


def _factor(real: float) -> tuple[int, int]:
    multiplier, shift = multiplier_and_shift(np.asarray(real))
    return int(multiplier), int(shift)


def _constants(form: Recurrence, x: Operand, weight: Any, bias: Any) -> tuple[np.ndarray, ...]:
    """Weight, bias, multiplier, shift and tables. Raises NotInteger where sums do not fit."""
    code_scale = 2.0**-CODE_BITS if x.bits <= 8 else 2.0**-STATE_BITS
    blocks = weight[:, : form.inputs], weight[:, form.inputs :]
    scales = (float(x.scale), x.zero), (code_scale, 0)
    parts = []
    for block, (scale, zero), added in zip(blocks, scales, bias, strict=True):
        codes, row_scale = row_codes(block)
        steps = row_scale.astype(np.float64) * scale
        start = np.rint(added / steps) - zero * codes.astype(np.int64).sum(axis=1)
        most = np.abs(codes.astype(np.int64)).sum(axis=1) * (2 ** (x.bits - 1)) + np.abs(start)
        if most.max(initial=0) > _SUM_LIMIT:
            raise NotInteger(f"sums of {block.shape[1]} products of int{x.bits} do not fit 32 bits")
        try:
            factors = multiplier_and_shift(steps * 2**GATE_BITS)
        except ValueError as error:
            raise NotInteger(str(error)) from error
        parts.append((codes, start.astype(np.int32), *factors))
    matrices, *rows = (list(column) for column in zip(*parts, strict=True))
    joined = np.concatenate(matrices, axis=1).astype(INT8.held)
    return joined, *map(np.stack, rows), gate_table("sigmoid"), gate_table("tanh")
