"""How many scales a tensor has, and which of its values share one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class Granularity(ABC):
    """Which values of a tensor share a scale."""

    @abstractmethod
    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scales of a tensor, of its rank; a scale serves a block of the tensor."""

    @property
    def group(self) -> int:
        """Values of a group; 0 where there are no groups."""
        return 0

    def shared(self, scales: np.ndarray) -> np.ndarray:
        """The scales that channels have which would each need one of `scales` [channels] for itself."""
        return scales


@dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale. [8, 3, 3, 3] -> [1, 1, 1, 1]."""

    def shared(self, scales: np.ndarray) -> np.ndarray:
        return np.full_like(scales, scales.max())

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (1,) * len(shape)


@dataclass(frozen=True)
class PerAxis(Granularity):
    """A scale for each index of an axis. Axis 0: [8, 3, 3, 3] -> [8, 1, 1, 1]."""

    axis: int

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        axis = _place(self.axis, shape)
        return tuple(size if i == axis else 1 for i, size in enumerate(shape))


@dataclass(frozen=True)
class PerGroup(Granularity):
    """A scale for every `size` values along an axis, at each index of the others; the last may be shorter.

    Axis 1, size 32: [8, 100] -> [8, 4].
    """

    axis: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a group of {self.size} values")

    @property
    def group(self) -> int:
        return self.size

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        axis = _place(self.axis, shape)
        return tuple(-(-size // self.size) if i == axis else size for i, size in enumerate(shape))


@dataclass(frozen=True)
class PerToken(Granularity):
    """A scale for each vector along the last axis, found when it is computed. [1, 7, 64] -> [1, 7, 1]."""

    def scale_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (*shape[:-1], 1)


def _place(axis: int, shape: Sequence[int]) -> int:
    """An axis counted from the front. Raises ValueError where there is none."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"no axis {axis} in a tensor of rank {len(shape)}")
    return axis % len(shape)


#: What a descriptor and `--weight-granularity` call them.
WORDS = ("tensor", "channel", "group", "token")


def parse_granularity(word: str, axis: int = 0, group_axis: int = 1, group: int = 0) -> Granularity:
    """ "tensor" | "channel" (of `axis`) | "group" (of `group` values along `group_axis`) | "token".

    Raises ValueError for another word, and for groups without a size.
    """
    match word:
        case "tensor":
            return PerTensor()
        case "channel":
            return PerAxis(axis)
        case "group":
            return PerGroup(group_axis, group)
        case "token":
            return PerToken()
    raise ValueError(f"no granularity {word!r}; known are {', '.join(WORDS)}")
