"""Verdicts on planted cases: what is lost for good, and what only looks different."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwptq.report.collapse import collapse, collapse_warnings
from hwptq.report.directions import COLLAPSED, DEGRADED, FINE, Directions

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(db: float) -> Change:
    return lambda x, rng: x + rng.standard_normal(x.shape) * x.std() * 10 ** (-db / 20)


def levels(bits: int) -> Change:
    """Rounded to so many levels that span the tensor."""
    return lambda x, _: np.round(x / np.abs(x).max() * (2 ** (bits - 1) - 0.5)) + 3


PLANTED: dict[str, tuple[Change, str]] = {
    "30 dB": (noise(30), FINE),
    "8 dB": (noise(8), DEGRADED),
    "-4 dB": (noise(-4), COLLAPSED),
    "scaled and moved": (lambda x, _: 9 - 5 * x, FINE),
    "eight bits": (levels(8), FINE),
    "a few directions only": (lambda x, _: np.where(np.arange(x.shape[-1]) < 8, x, 0), COLLAPSED),
    "its mean": (lambda x, _: np.broadcast_to(x.mean(axis=(0, 1), keepdims=True), x.shape), COLLAPSED),
    "another tensor": (lambda x, rng: rng.standard_normal(x.shape), COLLAPSED),
}


@pytest.mark.parametrize("shape", [(1, 64, 24), (1, 64, 96), (1, 24, 8, 8)])
@pytest.mark.parametrize("case", PLANTED)
def test_planted_cases(case: str, shape: tuple[int, ...]) -> None:
    change, verdict = PLANTED[case]
    found, rng = Directions(), np.random.default_rng(1)
    for _ in range(6):
        channels = shape[1] if len(shape) == 4 else shape[-1]
        x = rng.standard_normal((1, 64, channels)) + 4
        y = change(x, rng)
        x, y = (v.transpose(0, 2, 1).reshape(shape) if len(shape) == 4 else v for v in (x, y))
        found.add(x, y)
    assert found.verdict == verdict, found.kept


def test_a_single_probability_is_no_direction_but_a_number() -> None:
    found, rng = Directions(), np.random.default_rng(1)
    for _ in range(6):
        x = 1 / (1 + np.exp(-20 * rng.standard_normal((64, 1))))
        found.add(x, np.round(x * 255) / 255)
    assert found.verdict == FINE, found.kept


def test_rows_that_are_next_to_nothing_count_for_nothing() -> None:
    """As the channels that a ReLU cuts off, where channels come before positions."""
    found, rng = Directions(), np.random.default_rng(1)
    for _ in range(6):
        x = rng.standard_normal((1, 60, 21)) * np.where(np.arange(60) < 30, 1, 1e-3)[:, None]
        found.add(x, noise(30)(x, rng))
    assert found.verdict == FINE, found.kept


def test_few_rows_and_constants_have_no_verdict() -> None:
    found, still = Directions(), Directions()
    found.add(np.ones((1, 4, 8)), np.ones((1, 4, 8)))
    for _ in range(9):
        still.add(np.full((1, 9, 3), 2.0), np.zeros((1, 9, 3)))
    assert found.kept is None
    assert still.verdict is None


@pytest.mark.parametrize("masked", [-np.inf, np.nan, np.finfo(np.float32).min])
def test_masked_scores_are_no_direction(masked: float) -> None:
    """A row of them says nothing, and what stands for others in their place is far off, and no more."""
    rng, same, far = np.random.default_rng(4), Directions(), Directions()
    for i in range(9):
        x = rng.standard_normal((1, 64, 12)).astype(np.float32)
        off = x.copy()
        off[0, i] = masked
        far.add(x, off)
        x[0, i] = masked
        same.add(x, off)
    assert same.verdict == FINE
    assert far.verdict != FINE


def test_chance_alone_explains_nothing() -> None:
    rng, found = np.random.default_rng(3), Directions()
    found.add(rng.standard_normal((1, 40, 12)), rng.standard_normal((1, 40, 12)))
    assert found.kept is not None
    assert found.kept < 0.2


def test_the_first_layer_and_the_output_are_named() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 200, 6))
    good, bad, worse = Directions(), Directions(), Directions()
    good.add(x, x)
    bad.add(x, rng.standard_normal(x.shape))
    worse.add(x, np.zeros_like(x))
    layers = {"a": good, "b": bad, "c": worse}
    found = collapse(layers, {"y": worse, "z": good})
    assert found["first"] == "b"
    assert [row["verdict"] for row in found["outputs"]] == [COLLAPSED, FINE]
    (warning,) = collapse_warnings(layers, {"y": worse, "z": good})
    assert (warning.kind, warning.where, warning.serious) == ("collapse", "y", True)
    assert "first layer that collapses is b" in warning.text
    assert list(collapse_warnings({"a": good}, {"z": good})) == []
