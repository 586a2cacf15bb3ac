"""The choice of bit widths as an optimisation: a multiple-choice knapsack, solved to proven optimality.

minimise    sum of the sensitivities of the chosen candidates
subject to  one candidate per layer,
            sum of their costs <= limit,
            layers of a group agree on the dtype of their activation.

Sensitivities are told apart down to a billionth of the greatest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

_TOLERANCE = 1e-6  # of the solver
_CUTS = 10

Row = tuple[dict[int, float], float, float]  # coefficients by variable, least and greatest value


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer. Cost and sensitivity in any unit in which they add up."""

    activation: str
    weight: str
    cost: float
    sensitivity: float = 0.0

    @property
    def pair(self) -> tuple[str, str]:
        """(activation dtype, weight dtype)."""
        return self.activation, self.weight


class Infeasible(Exception):
    """No choice fits the limit; `smallest` is the least that any choice costs."""

    def __init__(self, smallest: float):
        super().__init__(f"the least cost of any assignment is {smallest:g}")
        self.smallest = smallest


Layers = Mapping[str, Sequence[Candidate]]
Choice = dict[str, Candidate]


def assign(layers: Layers, groups: Collection[Collection[str]] = (), limit: float | None = None) -> Choice:
    """The candidate of each layer with the least summed sensitivity whose summed cost is at most `limit`.

    groups: names of layers whose activations share a scale, so that they must have one dtype; a dtype that
    one of them does not offer is open to none. Raises Infeasible where nothing fits, and ValueError where the
    layers of a group have no activation dtype in common.
    """
    chosen = _Problem(layers, groups).solve("sensitivity", limit)
    if chosen is None:
        raise Infeasible(total(cheapest(layers, groups).values(), "cost"))
    return chosen


def cheapest(layers: Layers, groups: Collection[Collection[str]] = ()) -> Choice:
    """The candidates with the least summed cost, whatever their sensitivity. Raises ValueError too."""
    chosen = _Problem(layers, groups).solve("cost", None)
    if chosen is None:
        raise ValueError("layers that share a scale have no activation dtype in common")
    return chosen


def total(chosen: Iterable[Candidate], what: str) -> float:
    """The summed "cost" or "sensitivity"."""
    return fsum(getattr(c, what) for c in chosen)


class _Problem:
    """A binary variable per layer and candidate."""

    def __init__(self, layers: Layers, groups: Collection[Collection[str]]):
        self.variables = [(name, c) for name, candidates in layers.items() for c in candidates]
        self.rows: list[Row] = []
        index = {name: self._where(name) for name in layers}
        for columns in index.values():
            self.rows.append((dict.fromkeys(columns, 1.0), 1.0, 1.0))
        for group in groups:
            first, *others = sorted(group)
            for other in others:
                self._agree(index[first], index[other])

    def _where(self, name: str) -> list[int]:
        return [i for i, (layer, _) in enumerate(self.variables) if layer == name]

    def _agree(self, a: list[int], b: list[int]) -> None:
        """Both layers take an activation dtype, or neither does."""
        for dtype in {self.variables[i][1].activation for i in (*a, *b)}:
            row = {i: 1.0 for i in a if self.variables[i][1].activation == dtype}
            row |= {i: -1.0 for i in b if self.variables[i][1].activation == dtype}
            self.rows.append((row, 0.0, 0.0))

    def solve(self, minimise: str, limit: float | None) -> Choice | None:
        """The optimum within `limit`; None where there is none.

        The solver meets a limit within a tolerance of 1e-6 of the greatest cost. So the sum is checked, and a
        choice that exceeds the limit by so little is ruled out; after _CUTS of them, the limit is tightened.
        """
        if not self.variables:
            return {} if limit is None or limit >= 0 else None
        cuts: list[Row] = []
        step = _TOLERANCE * max(abs(c.cost) for _, c in self.variables)
        bound = limit
        while True:
            chosen = self._optimum(minimise, bound, cuts)
            if chosen is None or limit is None or bound is None or total(chosen.values(), "cost") <= limit:
                return chosen
            taken = {i: 1.0 for i, (name, c) in enumerate(self.variables) if chosen[name] is c}
            cuts.append((taken, 0.0, len(chosen) - 1.0))
            if len(cuts) > _CUTS:
                bound -= step
                step *= 2

    def _optimum(self, minimise: str, limit: float | None, cuts: Sequence[Row]) -> Choice | None:
        from scipy.optimize import Bounds, LinearConstraint, milp  # a quarter of what hwptq takes to import

        rows = [*self.rows, *cuts]
        if limit is not None:
            unit = max(abs(c.cost) for _, c in self.variables) or 1.0
            rows.append(
                ({i: c.cost / unit for i, (_, c) in enumerate(self.variables)}, -np.inf, limit / unit)
            )
        objective = np.array([getattr(c, minimise) for _, c in self.variables], dtype=np.float64)
        # the solver stops at an absolute gap of 1e-6: make that a billionth of the largest coefficient
        objective *= 1e3 / (np.abs(objective).max() or 1.0)
        matrix, low, high = _matrix(rows, len(objective))
        found = milp(
            objective,
            integrality=np.ones(len(objective)),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            return None
        return {name: c for (name, c), x in zip(self.variables, found.x, strict=True) if x > 0.5}


def _matrix(rows: Sequence[Row], columns: int) -> tuple[Any, np.ndarray, np.ndarray]:
    from scipy.sparse import coo_array

    entries = [(r, c, value) for r, (row, _, _) in enumerate(rows) for c, value in row.items()]
    r, c, values = (np.array(part) for part in zip(*entries, strict=True))
    low, high = (np.array([row[i] for row in rows]) for i in (1, 2))
    return coo_array((values, (r, c)), shape=(len(rows), columns)), low, high
