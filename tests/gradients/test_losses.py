"""Gradients of losses are what the losses do when a result changes a little."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwptq.gradients.losses import divergence, relative_error

Loss = Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


@pytest.mark.parametrize("loss", [divergence, relative_error])
@pytest.mark.parametrize("shape", [(7,), (1, 5), (1, 4, 9)])
def test_a_gradient_is_the_change_of_the_loss(loss: Loss, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    wanted, way = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    found = (wanted + 0.5 * rng.standard_normal(shape)).astype(np.float32)
    step = np.float32(1e-2)
    change = (loss(found + step * way, wanted)[0] - loss(found - step * way, wanted)[0]) / (2 * float(step))
    assert change == pytest.approx(float((loss(found, wanted)[1] * way).sum()), rel=2e-3, abs=1e-5)


@pytest.mark.parametrize("loss", [divergence, relative_error])
def test_what_is_wanted_loses_nothing(loss: Loss) -> None:
    wanted = np.random.default_rng(1).standard_normal((3, 8)).astype(np.float32)
    lost, gradient = loss(wanted, wanted)
    assert lost == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_likelihoods_do_not_depend_on_what_all_logits_share() -> None:
    rng = np.random.default_rng(2)
    wanted, found = (rng.standard_normal((3, 8)).astype(np.float32) for _ in range(2))
    shift = np.array([[1000], [-1000], [3]], np.float32)
    assert divergence(found + shift, wanted)[0] == pytest.approx(divergence(found, wanted)[0], rel=1e-3)
    assert divergence(found, wanted)[0] > 0
