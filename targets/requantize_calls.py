"""The intrinsics of a requantize step as kernels call them, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator

from .requantize import Requantize
from .templates import meanings
from .templates.intrinsics import Call, Immediate, Vector

_SUMS = (-(2**30) + 1, 2**30 - 1)
_MULTIPLIERS = (2**30, 2**31 - 1)
_PACKS = (
    ("pack_words", "int32", 1, "int16"),
    ("pack_bytes", "int16", 2, "int8"),
    ("pack_unsigned_bytes", "int16", 2, "uint8"),
)


def requantize_calls(requantize: Requantize) -> Iterator[Call]:
    """Calls, those without a name too."""
    yield from _steps(requantize)
    word, why = Vector("int32", 1), "it takes int32 and a number of bits"
    operands = (word, Immediate(8, "int32"))
    yield Call("requantize.saturate", requantize.saturate, word, operands, why, meanings.saturated(8))
    yield from _packing(requantize)


def _steps(requantize: Requantize) -> Iterator[Call]:
    """The two steps. Where the first is two instructions, only both together mean anything."""
    vector = Vector("int32", requantize.lanes)
    why = f"lanes {requantize.lanes} make operands {vector}"
    low, high = requantize.multiply_low, requantize.multiply_high
    yield Call("requantize.multiply_low", low, vector, (vector,) * 2, why)
    if low:
        yield Call("requantize.multiply_high", high, vector, (vector,) * 3, why)
    else:
        meaning, ranges = meanings.multiply_high, (_SUMS, _MULTIPLIERS)
        yield Call("requantize.multiply_high", high, vector, (vector,) * 2, why, meaning, ranges)
    flags = tuple(Immediate(number, "int32") for number in requantize.rounding_shift_flags)
    yield Call(
        "requantize.rounding_shift", requantize.rounding_shift, vector, (vector, vector, *flags), why,
        meanings.rounding_shift, (_SUMS, (-31, -1)),
    )  # fmt: skip


def _packing(requantize: Requantize) -> Iterator[Call]:
    for key, dtype, times, narrow in _PACKS:
        operand = Vector(dtype, times * requantize.lanes)
        result = Vector(narrow.removeprefix("u"), 2 * operand.lanes)
        why = f"lanes {requantize.lanes} make operands {operand}"
        name, meaning = getattr(requantize, key), meanings.packed(narrow)
        yield Call(f"requantize.{key}", name, result, (operand, operand), why, meaning)
