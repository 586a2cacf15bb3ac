"""The numbers of recurrent layers: tables near their functions, factors near real ones, states in range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.quant.gates import (
    CELL_BITS,
    GATE_BITS,
    HIGH,
    LOW,
    STATE_BITS,
    ArrayGates,
    from_real,
    gate_table,
    multiplier_and_shift,
    scaled,
)
from hwptq.quant.recurrence import gru, lstm, rnn

OPS = ArrayGates(gate_table("sigmoid"), gate_table("tanh"))
EVERY = np.arange(LOW, HIGH + 1)
codes = st.integers(LOW, HIGH)
seeds = st.integers(0, 2**32 - 1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("found", "real"), [(OPS.sigmoid, sigmoid), (OPS.tanh, np.tanh)])
def test_tables_are_within_a_step_and_a_half_and_never_fall(found, real) -> None:
    values = found(EVERY)
    assert np.abs(values - real(EVERY * 2.0**-GATE_BITS) * 2**STATE_BITS).max() < 2.5
    assert np.diff(values).min() >= 0


def test_tanh_is_odd_but_for_the_last_code() -> None:
    assert OPS.tanh(np.array([0])) == 0
    inner = np.arange(1, HIGH)
    assert np.abs(OPS.tanh(inner) + OPS.tanh(-inner)).max() <= 1


@given(st.floats(2**-31, 2**29, exclude_max=True))
def test_factors(real: float) -> None:
    multiplier, shift = multiplier_and_shift(np.asarray(real))
    assert 2**30 <= multiplier < 2**31
    assert 1 <= shift <= 62
    assert abs(float(multiplier) * 2.0 ** -float(shift) / real - 1) < 2**-29


@pytest.mark.parametrize("real", [-0.1, 2.0**29, np.nan, np.inf])
def test_impossible_factors(real: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        multiplier_and_shift(np.asarray(real))


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(2**30, 2**31 - 1), st.integers(1, 62))
def test_scaled_is_the_rounded_product(acc: int, multiplier: int, shift: int) -> None:
    exact = (acc * multiplier + (1 << (shift - 1))) >> shift
    assert scaled(np.array(acc), multiplier, shift) == min(max(exact, LOW), HIGH)


def test_states_from_real_numbers() -> None:
    x = np.array([0, 0.5, -0.25, 1e30, -1e30, np.nan, np.inf], np.float32)
    assert from_real(x, STATE_BITS).tolist() == [0, 2**14, -(2**13), HIGH, LOW, 0, HIGH]


@given(seeds)
def test_a_step_is_close_to_the_real_one_and_stays_in_range(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, h = (list(rng.integers(LOW, HIGH + 1, (4, 8))) for _ in range(2))
    state, cell = rng.integers(LOW, HIGH + 1, 8), rng.integers(LOW, HIGH + 1, 8)
    total = [np.clip(a + b, LOW, HIGH) * 2.0**-GATE_BITS for a, b in zip(x, h, strict=True)]
    i, o, f, g = sigmoid(total[0]), sigmoid(total[1]), sigmoid(total[2]), np.tanh(total[3])
    hidden, after = lstm(OPS, x, h, cell)
    wanted = np.clip(f * cell * 2.0**-CELL_BITS + i * g, -16, 16)
    assert np.abs(after * 2.0**-CELL_BITS - wanted).max() < 3e-3
    assert np.abs(hidden * 2.0**-STATE_BITS - o * np.tanh(np.clip(wanted, -8, 8))).max() < 4e-3
    new = gru(OPS, x, h, None, state) * 2.0**-STATE_BITS
    z, n = sigmoid(total[0]), np.tanh(total[2])
    assert np.abs(new - (z * state * 2.0**-STATE_BITS + (1 - z) * n)).max() < 1e-3
    assert np.abs(rnn(OPS, x, h) * 2.0**-STATE_BITS - np.tanh(total[0])).max() < 1e-3
    for values in (hidden, after):
        assert values.min() >= LOW
        assert values.max() <= HIGH
