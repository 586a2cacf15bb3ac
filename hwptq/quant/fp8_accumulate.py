"""A bit-exact model of matrix products of e4m3 on the tensor cores of NVIDIA Hopper.

The accumulator of an fp8 `wgmma` is no float32. In every step of 32 products, products and accumulator are
aligned to the largest exponent E among them and cut off below 2^(E-13); the sum is cut to 13 fraction bits:

    E   = max(max over k of e(a_k) + e(b_k), e(acc))     e: exponent, that of a subnormal e4m3 counts as -6
    acc = cut(acc, 2^(E-13)) + sum over k of cut(a_k * b_k, 2^(E-13))       cut: round toward zero
    acc = cut(acc, 2^(e(acc)-13))

A kernel that *promotes* adds the accumulator to a float32 register after every 128 products and starts anew
(DeepSeek-AI, 2024, "DeepSeek-V3 technical report", section 3.3.2, on the loss without it). The model was
found by comparing it with the chip.

A NaN among the operands makes every sum over it NaN, also against a zero. There is no infinity: the operands
have none, and 448^2 * K stays below the largest float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hwptq.formats import fp8

_LEAST = -12  # the exponent of the product of two subnormals
_BLOCK = 1 << 16  # products at a time: what fits the cache
#: Of the float32 that holds a sum: its fraction bits, and the exponents of its subnormals and of the least.
_RESULT_BITS, _SUBNORMAL, _SMALLEST = 23, -126, -149


@dataclass(frozen=True)
class Accumulator:
    """What a chip sums products in; the fields are those of a descriptor's [accumulator.DTYPE]."""

    step: int = 32  # products that are summed at once
    fraction_bits: int = 13  # kept below the largest exponent of a step
    promote: int = 128  # products after which the sum moves to a float32; 0 = never ("fast")


HOPPER = Accumulator()


def product(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.ndarray:
    """Codes a [..., M,K] and b [..., N,K] (uint8, leading axes equal) -> a @ b.T, float32 [..., M,N].

    K counts as if it were padded with zeros to a multiple of `model.step`.
    """
    lead = a.shape[:-2]
    if lead:
        flat = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
        return np.stack([product(x, y, model) for x, y in flat]).reshape(*lead, a.shape[-2], b.shape[-2])
    return product_of(_operand(a, model.step), _operand(b, model.step), model)


@dataclass(frozen=True)
class Operand:
    """Values and exponents of an operand, cut into steps: [steps, step, rows]; and which rows hold a NaN."""

    values: np.ndarray  # finite, of a dtype in which a step's sum of cut products is exact
    exponents: np.ndarray  # signed; that of zero lies below half of every product's
    nan: np.ndarray  # bool [rows]
    least: int  # the exponent of the product of two subnormals

    @property
    def count(self) -> int:
        """Its rows."""
        return int(self.values.shape[2])

    def rows(self, which: slice) -> Operand:
        return replace(
            self, values=self.values[:, :, which], exponents=self.exponents[:, :, which], nan=self.nan[which]
        )


def product_of(left: Operand, right: Operand, model: Accumulator) -> np.ndarray:
    """The sums of products of every row of `left` and every row of `right`: float32 [M,N]."""
    out = np.empty((left.count, right.count), np.float32)
    columns = min(right.count, max(1, _BLOCK // model.step))
    rows = max(1, _BLOCK // (model.step * columns))
    for m in range(0, left.count, rows):
        for n in range(0, right.count, columns):
            block = (slice(m, m + rows), slice(n, n + columns))
            out[block] = _block(left.rows(block[0]), right.rows(block[1]), model)
    return out


def in_steps(x: np.ndarray, step: int) -> np.ndarray:
    """[rows, K] -> [steps, step, rows], zeros behind it."""
    padded = np.pad(x, ((0, 0), (0, -x.shape[1] % step)))
    return np.ascontiguousarray(padded.T).reshape(-1, step, len(x))


def _operand(codes: np.ndarray, step: int) -> Operand:
    """Codes of e4m3 [rows, K]."""
    steps, nan = in_steps(codes, step), ((codes & 0x7F) == fp8.NAN).any(axis=1)
    return Operand(np.nan_to_num(fp8.decode(steps)), _EXPONENTS[steps], nan, _LEAST)


_NONE = -64  # stands for the exponent of zero: the sum of any two of them lies below every real exponent


def _code_exponents() -> np.ndarray:
    codes = np.arange(256)
    exponent = np.maximum((codes >> 3) & 15, 1) - 7
    return np.where(codes & 0x7F, exponent, _NONE).astype(np.int8)


_EXPONENTS = _code_exponents()


def _block(a: Operand, b: Operand, model: Accumulator) -> np.ndarray:
    shape = (a.count, b.count)
    total, acc = np.zeros(shape, np.float32), np.zeros(shape, a.values.dtype)
    for i in range(len(a.values)):
        acc = _step(acc, a, b, i, model.fraction_bits)
        if model.promote and (i + 1) * model.step % model.promote == 0:
            total, acc = total + acc.astype(np.float32), np.zeros_like(acc)
    with np.errstate(over="ignore"):
        rest = acc.astype(np.float32)
    found = total + rest if model.promote else rest
    found[a.nan[:, None] | b.nan[None, :]] = np.nan
    return found


def _step(acc: np.ndarray, a: Operand, b: Operand, i: int, fraction_bits: int) -> np.ndarray:
    """One step; everything here is exact: in e4m3 sums stay below 2^19 units."""
    dtype = acc.dtype.type
    largest = (a.exponents[i][:, :, None] + b.exponents[i][:, None, :]).max(axis=0)
    _, exponent = np.frexp(acc)
    exponent = np.where(acc == 0, a.least, np.maximum(exponent - 1, _SUBNORMAL))
    unit = np.maximum(np.maximum(largest, exponent), a.least) - fraction_bits
    up = np.ldexp(dtype(1), -unit).astype(dtype)
    terms = a.values[i][:, :, None] * b.values[i][:, None, :]
    terms *= up
    np.trunc(terms, out=terms)
    total = np.trunc(acc * up) + terms.sum(axis=0)
    _, bits = np.frexp(total)  # |total| < 2^bits units
    excess = np.maximum(bits - (min(fraction_bits, _RESULT_BITS) + 1), np.maximum(_SMALLEST - unit, 0))
    return np.ldexp(np.trunc(np.ldexp(total, -excess)), excess + unit)
