"""The gates of recurrent layers as code: the arithmetic of quant/gates.py in int32, scalar."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from hwptq.quant.gates import CELL_BITS, GATE_BITS, HIGH, LOW, STATE_BITS, STEP

from .builder import Expr, Flat, cast, clamp, constant


@dataclass(frozen=True)
class IntegerGates:
    """The operations of ArrayGates on int32 expressions; tables int16 [ENTRIES]."""

    sigmoid_table: Flat
    tanh_table: Flat

    def total(self, x: Expr, h: Expr) -> Expr:
        return within(x + h)

    def sigmoid(self, x: Expr) -> Expr:
        return _between(self.sigmoid_table, x)

    def tanh(self, x: Expr) -> Expr:
        return _between(self.tanh_table, x)

    def times(self, gate: Expr, x: Expr) -> Expr:
        return _rounded(gate * x, STATE_BITS)

    def into_cell(self, gate: Expr, x: Expr) -> Expr:
        return _rounded(gate * x, 2 * STATE_BITS - CELL_BITS)

    def cell(self, kept: Expr, added: Expr) -> Expr:
        return within(kept + added)

    def of_cell(self, cell: Expr) -> Expr:
        return within(cell * _int(1 << (GATE_BITS - CELL_BITS)))

    def blend(self, gate: Expr, old: Expr, new: Expr) -> Expr:
        return within(_rounded(gate * old + (_int(1 << STATE_BITS) - gate) * new, STATE_BITS))


def within(x: Expr, dtype: str = "int32") -> Expr:
    """x in the range of int16."""
    return T.bind(clamp(x, constant(LOW, dtype), constant(HIGH, dtype)))


def scaled(acc: Expr, multiplier: Expr, shift: Expr) -> Expr:
    """The same as quant.gates.scaled: int32."""
    wide, by = (cast(v, "int64") for v in (acc, shift))
    half = T.shift_left(constant(1, "int64"), by - constant(1, "int64"))
    moved = T.shift_right(wide * cast(multiplier, "int64") + half, by)
    return cast(within(moved, "int64"), "int32")


def from_real(x: Expr, bits: int) -> Expr:
    """The same as quant.gates.from_real: int32."""
    steps = T.bind(x * constant(float(2**bits), "float32"))
    real = T.bind(clamp(steps, constant(float(LOW), "float32"), constant(float(HIGH), "float32")))
    number = T.Select(T.isnan(x), constant(0.0, "float32"), T.nearbyint(real))
    return cast(number, "int32")


def _rounded(x: Expr, bits: int) -> Expr:
    return T.bind(T.shift_right(x + _int(1 << (bits - 1)), _int(bits)))


def _between(table: Flat, x: Expr) -> Expr:
    shift = STEP.bit_length() - 1
    above = T.bind(x - _int(LOW))
    at, rest = T.bind(T.shift_right(above, _int(shift))), T.bind(T.bitwise_and(above, _int(STEP - 1)))
    low, high = (cast(table.load(at + i), "int32") for i in (0, 1))
    return T.bind(T.shift_right(low * (_int(STEP) - rest) + high * rest + _int(STEP // 2), _int(shift)))


def _int(value: int) -> Expr:
    return constant(value, "int32")
