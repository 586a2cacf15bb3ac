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

from dataclasses import dataclass

import numpy as np

from . import fp8

_NONE = -64  # stands for the exponent of zero: the sum of any two of them lies below every real exponent
_LEAST = -12  # the exponent of the product of two subnormals
_BLOCK = 1 << 16  # products at a time: what fits the cache


@dataclass(frozen=True)
class Accumulator:
    """What a chip sums products of e4m3 in; the fields are those of a descriptor's [numerics]."""

    step: int = 32  # products that are summed at once
    fraction_bits: int = 13  # kept below the largest exponent of a step
    promote: int = 128  # products after which the sum moves to a float32; 0 = never ("fast")


def product(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.ndarray:
    """Codes a [..., M,K] and b [..., N,K] (uint8, leading axes equal) -> a @ b.T, float32 [..., M,N].

    K counts as if it were padded with zeros to a multiple of `model.step`.
    """
    lead = a.shape[:-2]
    if lead:
        flat = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
        return np.stack([product(x, y, model) for x, y in flat]).reshape(*lead, a.shape[-2], b.shape[-2])
    left, right = _Operand.of(a, model.step), _Operand.of(b, model.step)
    out = np.empty((a.shape[0], b.shape[0]), np.float32)
    columns = min(len(b), max(1, _BLOCK // model.step))
    rows = max(1, _BLOCK // (model.step * columns))
    for m in range(0, len(a), rows):
        for n in range(0, len(b), columns):
            block = (slice(m, m + rows), slice(n, n + columns))
            out[block] = _block(left.rows(block[0]), right.rows(block[1]), model)
    return out


@dataclass(frozen=True)
class _Operand:
    """Values and exponents of codes, cut into steps: [steps, step, rows]; and which rows hold a NaN."""

    values: np.ndarray  # float32
    exponents: np.ndarray  # int8
    nan: np.ndarray  # bool [rows]

    @staticmethod
    def of(codes: np.ndarray, step: int) -> _Operand:
        padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % step)))
        steps = np.ascontiguousarray(padded.T).reshape(-1, step, len(codes))
        nan = ((codes & 0x7F) == fp8.NAN).any(axis=1)
        return _Operand(np.nan_to_num(fp8.decode(steps)), _EXPONENTS[steps], nan)

    def rows(self, which: slice) -> _Operand:
        return _Operand(self.values[:, :, which], self.exponents[:, :, which], self.nan[which])


def _code_exponents() -> np.ndarray:
    codes = np.arange(256)
    exponent = np.maximum((codes >> 3) & 15, 1) - 7
    return np.where(codes & 0x7F, exponent, _NONE).astype(np.int8)


_EXPONENTS = _code_exponents()


def _block(a: _Operand, b: _Operand, model: Accumulator) -> np.ndarray:
    shape = (a.values.shape[2], b.values.shape[2])
    total, acc = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for i in range(len(a.values)):
        acc = _step(acc, a, b, i, model.fraction_bits)
        if model.promote and (i + 1) * model.step % model.promote == 0:
            total, acc = total + acc, np.zeros(shape, np.float32)
    if model.promote:
        acc = total + acc
    acc[a.nan[:, None] | b.nan[None, :]] = np.nan
    return acc


def _step(acc: np.ndarray, a: _Operand, b: _Operand, i: int, fraction_bits: int) -> np.ndarray:
    """One step; everything here is exact in float32: sums stay below 2^19 units."""
    largest = (a.exponents[i][:, :, None] + b.exponents[i][:, None, :]).max(axis=0)
    _, exponent = np.frexp(acc)
    exponent = np.where(acc == 0, _LEAST, exponent - 1)
    unit = np.maximum(np.maximum(largest, exponent), _LEAST) - fraction_bits
    up = np.ldexp(np.float32(1), -unit).astype(np.float32)
    terms = a.values[i][:, :, None] * b.values[i][:, None, :]
    terms *= up
    np.trunc(terms, out=terms)
    total = np.trunc(acc * up) + terms.sum(axis=0)
    _, bits = np.frexp(total)  # |total| < 2^bits units, of which fraction_bits + 1 bits are kept
    excess = np.maximum(bits - (fraction_bits + 1), 0)
    return np.ldexp(np.trunc(np.ldexp(total, -excess)), excess + unit)
