"""Matrix products of bfloat16: what the sum of products is, to the bit.

In order (an accumulator with a step of 1): acc is a float32 that the products are added to one after the
other, each time fma(a_k, b_k, acc), rounded to nearest. Every processor with an fma computes that.

In steps: the rules of fp8_accumulate with other numbers; a sum is cut to the 23 fraction bits of a float32
where more are kept within a step. Xie et al., 2025, "MMA-Sim: bit-accurate reference model of tensor cores
and matrix cores" find 16 products and 25 bits on Hopper, 8 and 24 on Ada; those for Hopper were compared with
an H100 (docs/performance.md). An exponent counts as -126 in what is subnormal, and a sum of zero has none; a
sum beyond a float32 is infinite, and operands that are infinite or NaN make what the real sum would be.
"""

from __future__ import annotations

import numpy as np

from hwptq.formats import bf16

from .fma import fma
from .fp8_accumulate import Accumulator, Operand, in_steps, product_of

#: The accumulator of processors that have none but a float32: one product after the other.
IN_ORDER = Accumulator(step=1, fraction_bits=23, promote=0)

_SUBNORMAL = -126  # the exponent of subnormals
_LEAST = 2 * _SUBNORMAL  # that of the product of two
_NONE = -1000  # that of an operand of zero
_BLOCK = 1 << 16  # sums at a time: what fits the cache
#: Exponents whose products are exact in float32: none too large, no bit below the least.
_LARGEST_EXACT, _LEAST_EXACT = 126, -135


def product(a: np.ndarray, b: np.ndarray, model: Accumulator) -> np.ndarray:
    """a [..., M,K] and b [..., N,K] (bfloat16, leading axes equal) -> a @ b.T, float32 [..., M,N]."""
    lead = a.shape[:-2]
    if lead:
        flat = zip(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]), strict=True)
        return np.stack([product(x, y, model) for x, y in flat]).reshape(*lead, a.shape[-2], b.shape[-2])
    x, y = bf16.decode(a), bf16.decode(b)
    if model.step == 1:
        return _in_order(x, y)
    found = product_of(_operand(x, model.step), _operand(y, model.step), model)
    rows, columns = (~np.isfinite(t).all(axis=1) for t in (x, y))
    with np.errstate(invalid="ignore"):
        if rows.any():
            found[rows] = x[rows].astype(np.float64) @ y.T.astype(np.float64)
        if columns.any():
            found[:, columns] = x.astype(np.float64) @ y[columns].T.astype(np.float64)
    return found


def multiply_add(acc: np.ndarray, x: np.ndarray, w: np.ndarray, exact: bool) -> np.ndarray:
    """fma(x, w, acc) of float32; `exact`: their products are known to be, see exact_products."""
    with np.errstate(invalid="ignore", over="ignore"):
        return acc + x * w if exact else fma(x, w, acc)


def exact_products(x: np.ndarray, w: np.ndarray) -> bool:
    """Whether every product of a value of x and one of w, held as float32, is a float32."""
    ends = [_ends(t) for t in (x, w)]
    return ends[0][0] + ends[1][0] >= _LEAST_EXACT and ends[0][1] + ends[1][1] <= _LARGEST_EXACT


def _ends(x: np.ndarray) -> tuple[int, int]:
    """The smallest and the largest exponent of what is finite and not 0."""
    magnitude = np.abs(x)
    found = magnitude[np.isfinite(magnitude) & (magnitude > 0)]
    exponents = np.frexp(np.array([found.min(), found.max()]))[1] - 1 if found.size else (0, 0)
    return int(exponents[0]), int(exponents[1])


def _in_order(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    exact, out = exact_products(x, y), np.zeros((len(x), len(y)), np.float32)
    left, right = np.ascontiguousarray(x.T), np.ascontiguousarray(y.T)
    rows = max(1, _BLOCK // len(y))
    for m in range(0, len(x), rows):
        acc = out[m : m + rows]
        terms = np.empty_like(acc)
        for a, b in zip(left[:, m : m + rows], right, strict=True):
            if exact:
                with np.errstate(invalid="ignore", over="ignore"):
                    np.multiply(a[:, None], b, out=terms)
                    acc += terms
            else:
                acc[...] = fma(a[:, None], b, acc)
    return out


def _operand(x: np.ndarray, step: int) -> Operand:
    steps = in_steps(np.where(np.isfinite(x), x, 0), step).astype(np.float64)
    exponents = np.maximum(np.frexp(steps)[1] - 1, _SUBNORMAL)
    return Operand(steps, np.where(steps == 0, _NONE, exponents), np.zeros(len(x), bool), _LEAST)
