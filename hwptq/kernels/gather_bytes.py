"""Bytes gathered from places in memory to one vector, by an instruction that takes half of them at once.

Each half comes as halfwords, and the lowest bytes of both are joined in turn: byte 2i is element i, and byte
2i + 1 is element k / 2 + i (MVE's VLDRB.S16 and VMOVNT).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from hwptq.tir.builder import Expr, Flat, cast, constant, dtype_of, shuffle

FARTHEST = 2**15 - 1  # offset that fits a halfword
_BYTE = 8  # bits


def gathered(intrinsic: str, k: int, x: Flat, first: Expr, offsets: np.ndarray) -> Expr:
    """int8 [k], joined in turn, of up to k elements at int [n] `offsets` behind `first`.

    What is loaded beyond them is to meet weights of 0.
    """
    half = k // 2
    parts = [part for part in (offsets[:half], offsets[half:]) if part.size]
    behind = [np.pad(part - part[0], (0, half - part.size)) for part in parts]
    if all(np.array_equal(behind[0][: part.size], part - part[0]) for part in parts):
        behind = [behind[0]] * len(parts)  # in one register
    halves = []
    for part, places in zip(parts, behind, strict=True):
        index = shuffle([constant(int(place), "int16") for place in places], range(half))
        arguments = x.address(first + int(part[0])), index, T.int32(_BYTE), T.int32(0), T.int32(0)
        halves.append(T.call_llvm_intrin(dtype_of("int16", half), intrinsic, *arguments))
    return _joined(halves, k)


def in_turn(k: int, x: Flat, first: Expr) -> Expr:
    """int8 [k] of neighbours from `first` on, in the order of what is gathered."""
    half = k // 2
    return _joined([cast(x.load(first + at, half), "int16", half) for at in (0, half)], k)


def reordered(values: np.ndarray, k: int) -> np.ndarray:
    """int8 [..., n] -> [..., ceil(n / k) * k], k at a time in the order of what is gathered; 0 at the end."""
    *lead, n = values.shape
    padded = np.pad(values, [(0, 0)] * len(lead) + [(0, -n % k)])
    halves = padded.reshape(*lead, -1, 2, k // 2).swapaxes(-1, -2)
    return np.ascontiguousarray(halves).reshape(*lead, -1)


def _joined(halves: Sequence[Expr], k: int) -> Expr:
    """The lowest bytes of one or two int16 [k / 2], in turn."""
    parts = [T.bind(T.reinterpret(dtype_of("int8", k), half)) for half in halves]
    if len(parts) == 1:
        return parts[0]
    return T.bind(shuffle(parts, [i for at in range(0, k, 2) for i in (at, k + at)]))
