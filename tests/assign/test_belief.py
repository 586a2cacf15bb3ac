"""What a classifier believes it loses: bounds, calibration, and how it compares with counted hits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.bitwidths.belief import believed_drop


def drawn(seed: int, samples: int, sureness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `sureness` times those that the labels are drawn by, and the labels."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((samples, 5)) * 2
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in p])
    return (sureness * logits).astype(np.float32), labels


@given(st.integers(0, 1000))
def test_the_same_answers_lose_nothing_and_others_something(seed: int) -> None:
    logits, labels = drawn(seed, 20)
    own, other = logits.argmax(axis=1), logits.argmin(axis=1)
    assert believed_drop(logits, labels, own) == 0
    assert 0 < believed_drop(logits, labels, other) <= 100


@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_it_is_the_drop_that_many_samples_show(sureness: float) -> None:
    """However sure of itself the network is: the temperature brings that in order."""
    logits, labels = drawn(1, 40000, sureness)
    answers = (logits + np.random.default_rng(2).normal(0, sureness, logits.shape)).argmax(axis=1)
    own = logits.argmax(axis=1)
    measured = 100 * ((own == labels).mean() - (answers == labels).mean())
    assert believed_drop(logits, labels, answers) == pytest.approx(measured, abs=0.6)


def test_it_varies_less_than_hits_do() -> None:
    """Over draws of 200 samples: less than half the spread."""
    believed, hits = [], []
    for seed in range(60):
        logits, labels = drawn(seed, 200)
        noise = np.random.default_rng(1000 + seed).normal(0, 0.3, logits.shape)
        answers, own = (logits + noise).argmax(axis=1), logits.argmax(axis=1)
        believed.append(believed_drop(logits, labels, answers))
        hits.append(100 * ((own == labels).mean() - (answers == labels).mean()))
    assert np.std(believed) < np.std(hits) / 2


def test_probabilities_stand_for_their_logits() -> None:
    logits, labels = drawn(3, 50)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = logits.argmin(axis=1)
    assert believed_drop(p, labels, answers) == pytest.approx(
        believed_drop(logits, labels, answers), rel=1e-4
    )
