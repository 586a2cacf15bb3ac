"""Recurrent layers spelled out unit by unit, in Python's integers: see naive.py."""

from __future__ import annotations

from fractions import Fraction
from math import isnan
from typing import Any

import numpy as np


def recurrent(op: Any, x: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """What the docstrings of Recurrent and Recurrence say."""
    *given, weight, bias, multiplier, shift, sigmoid, tanh = rest
    lengths = given.pop(0) if op.lengths else None
    hidden0 = given.pop(0) if op.initial_hidden else None
    cell0 = given.pop(0) if op.initial_cell else None
    steps, batch, inputs = x.shape
    directions, units = len(op.backwards), weight.shape[1] - inputs
    gates = len(weight) // directions // units
    out = np.full((steps + op.last, directions, batch, units), op.out_zero_point, op.out)

    def table(entries: np.ndarray, value: int) -> int:
        at, rest = divmod(value + 2**15, 64)
        return (int(entries[at]) * (64 - rest) + int(entries[at + 1]) * rest + 32) // 64

    def result(value: int, factor: tuple[int, int]) -> int:
        return max(op.lo, min(op.hi, scaled(value, *factor) + op.out_zero_point))

    for d in range(directions):
        for b in range(batch):
            h = [0 if hidden0 is None else code(hidden0[d, b, u], 2**15) for u in range(units)]
            c = [0 if cell0 is None else code(cell0[d, b, u], 2**11) for u in range(units)]
            end = steps if lengths is None else max(0, min(steps, int(lengths[b])))
            order = range(end)[::-1] if op.backwards[d] else range(end)
            for t in order:

                def part(which: int, gate: int, unit: int, values: list[int], d: int = d) -> int:
                    row = (d * gates + gate) * units + unit
                    first = inputs * which
                    acc = sum(v * int(weight[row, first + i]) for i, v in enumerate(values))
                    acc += int(bias[which, row])
                    return scaled(acc, int(multiplier[which, row]), int(shift[which, row]))

                def read(states: list[int]) -> list[int]:
                    if op.state_bits == 16:
                        return states
                    return [max(-128, min(127, (s + 128) // 256)) for s in states]

                seen, old = [int(v) for v in x[t, b]], read(h)
                gx = [[part(0, g, u, seen) for u in range(units)] for g in range(gates)]
                gh = [[part(1, g, u, old) for u in range(units)] for g in range(gates)]
                total = [[cut(gx[g][u] + gh[g][u]) for u in range(units)] for g in range(gates)]
                if op.cell == "rnn":
                    h = [table(tanh, total[0][u]) for u in range(units)]
                elif op.cell == "lstm":
                    for u in range(units):
                        i, o, f = (table(sigmoid, total[g][u]) for g in range(3))
                        g = table(tanh, total[3][u])
                        c[u] = cut(halved(f * c[u], 15) + halved(i * g, 19))
                        h[u] = halved(o * table(tanh, cut(2 * c[u])), 15)
                else:
                    r = [table(sigmoid, total[1][u]) for u in range(units)]
                    if op.reset_after:
                        rest_ = [halved(r[u] * gh[2][u], 15) for u in range(units)]
                    else:
                        kept = read([halved(r[u] * h[u], 15) for u in range(units)])
                        rest_ = [part(1, 2, u, kept) for u in range(units)]
                    new = []
                    for u in range(units):
                        z, n = table(sigmoid, total[0][u]), table(tanh, cut(gx[2][u] + rest_[u]))
                        new.append(cut(halved(z * h[u] + (2**15 - z) * n, 15)))
                    h = new
                out[t, d, b] = [result(v, op.hidden_factor) for v in h]
            for row, (states, factor) in enumerate(((h, op.hidden_factor), (c, op.cell_factor))):
                if row < op.last:
                    out[steps + row, d, b] = [result(v, factor) for v in states]
    return out


def cut(value: int) -> int:
    """Within int16."""
    return max(-(2**15), min(2**15 - 1, value))


def halved(value: int, bits: int) -> int:
    """value / 2^bits, halves up."""
    return (2 * value + 2**bits) // 2 ** (bits + 1)


def scaled(acc: int, multiplier: int, shift: int) -> int:
    return cut(halved(acc * multiplier, shift))


def code(value: np.float32, steps: int) -> int:
    """A real number in steps, to the nearest, ties to even."""
    if isnan(value):
        return 0
    if abs(value) > 2**15:
        return 2**15 - 1 if value > 0 else -(2**15)
    return cut(round(Fraction(float(value)) * steps))
