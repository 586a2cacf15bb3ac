"""--budget: what is taken, what is refused, and what it allows."""

from __future__ import annotations

import pytest

from hwptq.bitwidths.budget import Budget, parse_budget
from hwptq.errors import InputError


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("weights=400kB", Budget("weights", 400_000)),
        ("weights=1.5MB", Budget("weights", 1_500_000)),
        ("weights=2 KiB", Budget("weights", 2048)),
        ("weights=3MiB", Budget("weights", 3 * 2**20)),
        ("weights=123456B", Budget("weights", 123456)),
        ("weights=123456", Budget("weights", 123456)),
        ("weights=0.5x", Budget("weights", 0.5, relative=True)),
        ("cycles=0.8x", Budget("cycles", 0.8, relative=True)),
        ("cycles=1e6", Budget("cycles", 1e6)),
        ("macs-int4=70%", Budget("macs-int4", 0.7)),
        ("arena=64kB", Budget("arena", 64e3)),
        ("bits=3.2", Budget("bits", 3.2)),
    ],
)
def test_is_read_and_written(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget
    assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    "text",
    ["", "weights", "weights=", "weights=-1kB", "weights=0", "weights=1TB", "weights=nan", "weights=inf",
     "weights=50%", "cycles=0x", "cycles=70%", "cycles=1kB", "macs=70%", "macs-int4=0.7", "macs-int4=101%",
     "macs-int4=-5%", "bits=0", "bits=3b", "bits=0.5x", "bytes=4", "Weights=4kB",
     "weights=4kB;", "weights=1_000"],
)  # fmt: skip
def test_anything_else_is_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--budget {text}: ")


def test_limits() -> None:
    assert parse_budget("weights=400kB").limit(1e9) == 400_000
    assert parse_budget("cycles=0.8x").limit(1000) == 800
    assert parse_budget("macs-int4=90%").limit(1000) == 100


@pytest.mark.parametrize(
    "budget", [Budget("weights", 1), Budget("bits", 4), Budget("cycles", 1, True), Budget("macs-int4", 1)]
)
@pytest.mark.parametrize("cost", [1.0, 333.4, 700.0, 999.99])
def test_what_is_named_as_feasible_is(budget: Budget, cost: float) -> None:
    assert parse_budget(budget.show(cost, 1000.0)).limit(1000.0) >= cost - 1e-3
