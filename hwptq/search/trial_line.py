"""What a search for --max-drop tells of each choice that it has tried, in a line."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from hwptq.formats import INT8, Pair, format_of
from hwptq.passes.layer_costs import LayerCosts

from .known_trials import Lost


@dataclass(frozen=True)
class Tried:
    """A trial: which one, the dtypes of its layers, what layers cost, the kind of cost that the search keeps
    low, what is lost, and the seconds that it took; most: the points that may be lost; open: how many choices
    still lie between the last that did not hold and the cheapest that does."""

    number: int
    pairs: dict[str, Pair]
    costs: LayerCosts
    saves: str
    lost: Lost
    seconds: float
    most: float
    open: int

    @property
    def holds(self) -> bool:
        """Whether it loses no more than it may."""
        return self.lost.measured <= self.most

    @property
    def left(self) -> int:
        """Trials that halving what is open takes at most."""
        return ceil(log2(self.open + 1))


def trial_line(tried: Tried) -> str:
    """Such as "trial 2: 1,412 kB of weights (81 %), 56 % of the products with weights of fewer than 8 bits:
    loses 0.31 of 0.9 points, holds; 41 s, about 2 more"."""
    cost, highest = tried.costs.total(tried.saves, tried.pairs), tried.costs.highest(tried.saves)
    shown = f"{cost / 1e3:,.0f} kB of weights" if tried.saves == "weights" else f"{cost:.4g} {tried.saves}"
    of = f" ({100 * cost / highest:.0f} %)" if highest else ""
    few = f"{100 * _few(tried):.0f} % of the products with weights of fewer than 8 bits"
    lost = f"loses {tried.lost.measured:.2f} of {tried.most:g} points"
    if tried.lost.believed is not None:
        lost += f" ({tried.lost.believed:.2f} by what float32 believes)"
    verdict = "holds" if tried.holds else "too much"
    more = f"about {tried.left} more" if tried.left else "the last"
    return f"trial {tried.number}: {shown}{of}, {few}: {lost}, {verdict}; {tried.seconds:.0f} s, {more}"


def _few(tried: Tried) -> float:
    """The share of the multiply-accumulates whose weights have fewer bits than int8."""
    total = tried.costs.highest("macs-int4")
    names = [name for name, (_, weight) in tried.pairs.items() if format_of(weight).bits < INT8.bits]
    return sum(map(tried.costs.macs, names)) / total if total else 0.0
