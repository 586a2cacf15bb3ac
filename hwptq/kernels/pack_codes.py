"""Weights by group as the kernel of group_dot.py reads them: fields that a shift and a mask give back.

A row is lanes * k bytes, one for each weight of an operand of the instruction. Operands share rows in units:
two operands of 4 bits in one row, four of 2 bits, and eight of 3 bits in three, two rows with the lower two
bits of four operands each and one with the upper bits of all. A field holds the place of a level among all of
them, lowest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.formats import format_of
from hwptq.quant.group_codes import unpack_rows
from hwptq.tir.builder import Expr, constant

from .pack_weights import channels_of

_BYTE = 8


@dataclass(frozen=True)
class Field:
    """`bits` of a row of a unit, from bit `place` on, that begin at bit `lifted` of the code."""

    row: int
    place: int
    bits: int
    lifted: int = 0


@dataclass(frozen=True)
class Unit:
    """Operands that share rows: fields[i] are those of operand i."""

    rows: int
    fields: tuple[tuple[Field, ...], ...]

    @property
    def operands(self) -> int:
        """How many they are."""
        return len(self.fields)


def unit_of_bits(bits: int) -> Unit | None:
    """How codes of so many bits share rows; None where there is no such way."""
    if _BYTE % bits == 0:
        each = _BYTE // bits
        return Unit(1, tuple((Field(0, i * bits, bits),) for i in range(each)))
    if bits == 3:
        low = [Field(i // 4, i % 4 * 2, 2) for i in range(_BYTE)]
        return Unit(3, tuple((field, Field(2, i, 1, 2)) for i, field in enumerate(low)))
    return None


def levels_of(weight: str) -> list[int]:
    """Those of a format, the lowest first."""
    return sorted(int(v) for v in format_of(weight).points())


def codes_above(unit: Unit, rows: Sequence[Expr], index: int, levels: Sequence[int], width: int) -> Expr:
    """Code: levels of operand `index` less the lowest one, of `width` neighbouring bytes of a unit's rows."""

    def byte(value: int) -> Expr:
        return constant(value, "uint8", width)

    code: Expr = None
    for f in unit.fields[index]:
        part = rows[f.row]
        if f.place:
            part = T.shift_right(part, byte(f.place))
        if f.place + f.bits < _BYTE:
            part = T.bitwise_and(part, byte(2**f.bits - 1))
        if f.lifted:
            part = T.shift_left(part, byte(f.lifted))
        code = part if code is None else T.bitwise_or(code, part)
    above = [level - levels[0] for level in levels]
    if above == [above[1] * i for i in range(len(above))]:
        return T.bind(code if above[1] == 1 else code * byte(above[1]))
    code, found = T.bind(code), byte(0)
    for place, value in enumerate(above[1:], 1):
        found = T.Select(code >= byte(place), byte(value), found)
    return T.bind(found)


def pack_codes(codes: np.ndarray, weight: str, depth: int, lanes: int, k: int, block: int) -> np.ndarray:
    """Packed rows of a graph, uint8 [O, bytes] -> uint8 [vectors * units * rows, lanes * k].

    The vectors of a block of `block`, or of what is left at the end, take turns unit by unit.
    """
    found = format_of(weight)
    unit = unit_of_bits(found.bits)
    assert unit is not None  # the template has asked
    place_of = np.zeros(256, np.uint8)
    place_of[np.array(levels_of(weight), np.int8).view(np.uint8)] = np.arange(2**found.bits)
    places = place_of[unpack_rows(codes, found, depth).view(np.uint8)]  # [O, K]
    by_vector = places.reshape(len(places), -1, unit.operands, k)[channels_of(len(places), lanes)]
    operands = by_vector.transpose(0, 2, 3, 1, 4)  # [vectors, units, operands, lanes, k]
    operands = operands.reshape(*operands.shape[:3], lanes * k)
    rows = np.zeros((*operands.shape[:2], unit.rows, lanes * k), np.uint8)
    for i, fields in enumerate(unit.fields):
        for f in fields:
            part = operands[:, :, i] >> np.uint8(f.lifted) & np.uint8(2**f.bits - 1)
            rows[:, :, f.row] |= part << np.uint8(f.place)
    return _in_turns(rows, block).reshape(-1, lanes * k)


def pack_group_scales(scales: np.ndarray, lanes: int, block: int) -> np.ndarray:
    """[O, G] -> [vectors * G, lanes] of the same dtype, the vectors of a block in turns group by group."""
    by_vector = scales[channels_of(len(scales), lanes)].transpose(0, 2, 1)  # [vectors, G, lanes]
    return _in_turns(by_vector[:, :, None], block).reshape(-1, lanes)


def _in_turns(rows: np.ndarray, block: int) -> np.ndarray:
    """[vectors, steps, rows, width] -> [vectors * steps * rows, width]."""
    parts = [rows[i : i + block].swapaxes(0, 1) for i in range(0, len(rows), block)]
    return np.concatenate([part.reshape(-1, rows.shape[-1]) for part in parts])
