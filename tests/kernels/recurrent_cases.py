"""Random recurrent layers in integers: all cells, directions, lengths and first states, limits among them."""

from __future__ import annotations

from random import Random

import numpy as np
from int16_cases import int16
from kernel_cases import Case, int8

from hwptq.operators.recurrent import Recurrent
from hwptq.quant.gates import gate_table, multiplier_and_shift
from hwptq.quant.recurrence import GATES

_CELLS = tuple(GATES)
_DIRECTIONS = ((False,), (True,), (False, True))


def recurrent_case(random: Random) -> Case:
    """A Recurrent; sums stay within 32 bits."""
    cell, backwards = random.choice(_CELLS), random.choice(_DIRECTIONS)
    steps, batch, inputs, hidden = (random.choice(c) for c in ((1, 2, 5), (1, 3), (1, 4, 17), (1, 3, 8, 20)))
    wide = random.random() < 0.3
    rng = np.random.default_rng(random.getrandbits(32))
    rows = len(backwards) * GATES[cell] * hidden
    x = (int16 if wide else int8)(random, steps, batch, inputs)
    first = [random.random() < 0.5 for _ in range(3)]
    given: list[np.ndarray] = []
    if first[0]:
        given.append(rng.integers(-1, steps + 2, batch).astype(np.int32))
    for wanted, reach in ((first[1], 1.3), (first[2], 20.0)):
        if wanted:
            state = rng.uniform(-reach, reach, (len(backwards), batch, hidden)).astype(np.float32)
            state.flat[0] = random.choice((np.nan, np.inf, -np.inf, 0.5))
            given.append(state)
    factors = 2.0 ** rng.uniform(-14, 8, (2, rows)) / (256 if wide else 1)
    bias = rng.integers(-(2**20), 2**20, (2, rows)).astype(np.int32)
    last = random.choice((0, 1, 2))
    scaled = [multiplier_and_shift(np.asarray(2.0 ** random.uniform(-9, 1))) for _ in range(2)]
    hidden_factor, cell_factor = ((int(m), int(s)) for m, s in scaled)
    out = random.choice(("int8", "int16"))
    limits = (-128, 127) if out == "int8" else (-32767, 32767)
    zero = random.choice((0, -128, 5)) if out == "int8" else 0
    op = Recurrent(
        cell, backwards, random.random() < 0.5, last, *first, hidden_factor, cell_factor, zero, *limits, out,
        state_bits=16 if wide else 8, activation_bits=16 if wide else 8,
    )  # fmt: skip
    constants = (int8(random, rows, inputs + hidden), bias, *multiplier_and_shift(factors))
    return Case(op, (x, *given), (*constants, gate_table("sigmoid"), gate_table("tanh")))
