"""The set of rules: the name of an operator of Relax -> how a gradient goes back through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Gradient = np.ndarray | None


@dataclass(frozen=True)
class Place:
    """Where a gradient goes back through an operator.

    call: the operator; inputs: the arrays that it took, tuples spread out; output: what it gave; needed:
    whether a gradient of each input is wanted.
    """

    call: Any
    inputs: Sequence[np.ndarray]
    output: Any
    needed: Sequence[bool]

    def axes(self, value: Any) -> tuple[int, ...]:
        """An attribute that names axes, counted from the first."""
        rank = self.inputs[0].ndim
        listed = range(rank) if value is None else value if hasattr(value, "__iter__") else [value]
        return tuple(int(a) % rank for a in listed)


#: (place, the gradient of the output) -> the gradient of each input, None where none is needed.
Rule = Callable[[Place, Any], Sequence[Gradient]]

_RULES: dict[str, Rule] = {}


def derivative(*names: str) -> Callable[[Rule], Rule]:
    """Marks the rule of operators of these names."""

    def register(rule: Rule) -> Rule:
        for name in names:
            if _RULES.setdefault(name, rule) is not rule:
                raise ValueError(f"{name} has a rule already")
        return rule

    return register


def rule_of(name: str) -> Rule | None:
    """The rule of an operator, None where it has none."""
    return _RULES.get(name)


def summed_to(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient of what was broadcast from `shape`. [[1, 2], [3, 4]] to (2,) -> [4, 6]."""
    extra = gradient.ndim - len(shape)
    if extra:
        gradient = gradient.sum(axis=tuple(range(extra)))
    wide = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=wide, keepdims=True) if wide else gradient
