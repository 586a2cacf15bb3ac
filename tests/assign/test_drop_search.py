"""The search for --max-drop: which choices are tried, by their noise and what they lose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwptq.search import drop_search
from hwptq.search.drop_search import STEPS, Lost, cheapest_within


@dataclass(frozen=True)
class Choice:
    """What stands for BitWidths: a step, and its noise."""

    step: int
    noise: float
    wide: bool = False
    tried: tuple[tuple[float, float], ...] = ()

    @property
    def pairs(self) -> dict[str, Any]:
        return {"layer": (self.step, self.wide)}


@dataclass
class Chooser:
    """What stands for a chooser: by step the noise of its choice."""

    noises: tuple[float, ...]
    wide: bool = False
    saves: str = "weights"
    costs: Any = field(default_factory=lambda: SimpleNamespace(total=lambda kind, pairs: pairs["layer"][0]))

    def choose(self, step: int) -> Any:
        return Choice(step, self.noises[step], self.wide)


@pytest.fixture(autouse=True, scope="module")
def budgets_are_steps() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drop_search, "budget_at", lambda chooser, step: step)
        yield


def searched(noises: tuple[float, ...], loss: Callable[[Any], float], most: float, **words: Any) -> Any:
    return cheapest_within(Chooser(noises), lambda choice: Lost(loss(choice)), most, **words)


FALLING = st.lists(st.floats(1e-3, 1.0), min_size=STEPS + 1, max_size=STEPS + 1).map(
    lambda steps: tuple(sum(steps[i:]) for i in range(STEPS + 1))
)


@given(FALLING, st.floats(0.5, 2.0), st.floats(0.01, 10.0))
def test_finds_the_cheapest_that_holds(noises: tuple[float, ...], power: float, most: float) -> None:
    """Wherever the dearer loses less, be it in proportion to the noise or not."""
    found = searched(noises, lambda choice: choice.noise**power, most)
    assert found.step == next((i for i in range(STEPS) if noises[i] ** power <= most), STEPS)


def test_points_in_proportion_to_noise_take_three_trials() -> None:
    found = searched(tuple(100 * 0.7**i for i in range(STEPS + 1)), lambda choice: 0.2 * choice.noise, 1.0)
    assert found.step == 9  # 100 * 0.7 ** 9 = 4.04
    assert len(found.tried) == 3


def test_where_bytes_lose_too_much_wider_activations_are_tried() -> None:
    noises = tuple(float(STEPS + 1 - i) for i in range(STEPS + 1))
    loss: Callable[[Any], float] = lambda choice: choice.noise + (0 if choice.wide else 10)  # noqa: E731
    found = searched(noises, loss, 5.0, wider=lambda: Chooser(noises, wide=True))
    assert found.wide
    assert found.noise == 5.0


def test_nothing_wider_is_looked_for_where_bytes_hold() -> None:
    noises = tuple(float(STEPS + 1 - i) for i in range(STEPS + 1))
    asked: list[None] = []
    found = searched(noises, lambda choice: choice.noise, 5.0, wider=lambda: asked.append(None))
    assert found.noise == 5.0
    assert not asked


def test_the_widest_is_taken_where_nothing_holds() -> None:
    noises = (1.0,) * (STEPS + 1)
    found = searched(noises, lambda choice: 100.0, 5.0, wider=lambda: Chooser(noises, wide=True))
    assert found.wide
    assert found.step == STEPS
