"""What intrinsics of a descriptor mean, in numpy: what one is compared with when `targets check` runs it.

Each function takes the operands as int arrays, one row for each try, and gives the results in the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Meaning = Callable[..., np.ndarray]


def _wrapped(values: np.ndarray) -> np.ndarray:
    """int64 -> int32, modulo 2^32."""
    return values.astype(np.int64).astype(np.int32)


def dot_product(lanes: int, k: int, bits: int, order: Sequence[str], unsigned_activation: bool) -> Meaning:
    """acc[lane] += sum over k of activation * weight; `order` of "accumulator", "activation" and "weight"."""

    def narrow(operand: np.ndarray, dtype: str) -> np.ndarray:
        return np.ascontiguousarray(operand).view(dtype).reshape(len(operand), lanes, k).astype(np.int64)

    def meaning(*operands: np.ndarray) -> np.ndarray:
        found = dict(zip(order, operands, strict=True))
        activation = narrow(found["activation"], f"{'u' * unsigned_activation}int{bits}")
        sums = (activation * narrow(found["weight"], f"int{bits}")).sum(axis=2)
        return _wrapped(sums + found.get("accumulator", 0))

    return meaning


def matrix_multiply(rows: int, columns: int, k: int) -> Meaning:
    """acc[row][column] += sum over k of activation[row] * weight[column]."""

    def meaning(acc: np.ndarray, activation: np.ndarray, weight: np.ndarray) -> np.ndarray:
        a, w = (v.reshape(len(v), -1, k).astype(np.int64) for v in (activation, weight))
        return _wrapped(acc + np.einsum("trk,tck->trc", a, w).reshape(len(acc), rows * columns))

    return meaning


def even_bytes(word: np.ndarray) -> np.ndarray:
    """Bytes 0 and 2 of each int32, with their signs, as the halfwords of another."""
    wide = np.ascontiguousarray(word).view(np.int8).reshape(len(word), -1, 4)[:, :, ::2]
    return np.ascontiguousarray(wide.astype(np.int16)).view(np.int32).reshape(word.shape)


def gathered(memory: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int8 at `offsets` of the memory, with their signs, as wide as the offsets."""
    return np.take_along_axis(memory, offsets.astype(np.int64), axis=1).astype(offsets.dtype)


def scattered(size: int) -> Meaning:
    """The lowest byte of each word at its offset of `size` zeros; of several at one place the last one."""

    def meaning(offsets: np.ndarray, words: np.ndarray) -> np.ndarray:
        found = np.zeros((len(words), size), np.int8)
        for lane in range(words.shape[1]):
            found[np.arange(len(words)), offsets[:, lane]] = words[:, lane].astype(np.int8)
        return found

    return meaning


def multiply_high(*operands: np.ndarray) -> np.ndarray:
    """(2 a m + 2^31) >> 32 of the last two operands."""
    a, m = (v.astype(np.int64) for v in operands[-2:])
    return _wrapped((a * m + 2**30) >> 31)


def rounding_shift(value: np.ndarray, minus_shift: np.ndarray) -> np.ndarray:
    """(v + 2^(s-1)) >> s of v and -s."""
    by = -minus_shift.astype(np.int64)
    return _wrapped((value.astype(np.int64) + (np.int64(1) << (by - 1))) >> by)


def packed(dtype: str) -> Meaning:
    """Two vectors narrowed with saturation: 128 bits of the one, then of the other, block by block."""
    limits = np.iinfo(dtype)

    def meaning(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        block = 16 // first.dtype.itemsize
        parts = [v.reshape(len(v), -1, min(block, v.shape[1])) for v in (first, second)]
        joined = np.concatenate(parts, axis=2).reshape(len(first), -1)
        return np.clip(joined, limits.min, limits.max).astype(dtype)

    return meaning


def saturated(bits: int) -> Meaning:
    """A value clipped to what fits so many bits."""
    return lambda value: np.clip(value, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
