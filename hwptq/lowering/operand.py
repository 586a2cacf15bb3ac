"""What rules work on: quantized operands, and reading attributes of operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hwptq.formats import Format, format_of
from hwptq.quant.qparams import ANY_GRID, Grid, activation_qparams


class NotInteger(Exception):
    """A node that has no quantized form; its message is the reason, for the report."""


@dataclass(frozen=True)
class Operand:
    """A quantized tensor: real = (tensor - zero) * scale."""

    tensor: Any  # Relax expression of the dtype that holds a format, or the array of a constant
    scale: np.ndarray  # float32 scalar, or one value per channel of a weight
    zero: int
    shape: tuple[int, ...]

    @property
    def is_constant(self) -> bool:
        """Whether the tensor is an array."""
        return isinstance(self.tensor, np.ndarray)

    @property
    def dtype(self) -> str:
        """The dtype of the tensor."""
        return str(self.tensor.dtype if self.is_constant else self.tensor.ty.dtype)

    @property
    def format(self) -> Format:
        """The format that a tensor of that dtype holds; int8 of an int4, too."""
        return format_of(self.dtype)

    @property
    def bits(self) -> int:
        """Those of its format."""
        return self.format.bits

    @property
    def reach(self) -> int:
        """What no value of an integer tensor exceeds, its zero point taken off."""
        return 2 ** (self.bits - 1) if self.zero == 0 else 2**self.bits - 1

    @property
    def points(self) -> np.ndarray:
        """The real value of each code, in the order of a table."""
        return self.format.points(self.scale, self.zero)


def constant_operand(real: np.ndarray, held: Format, grid: Grid = ANY_GRID) -> Operand:
    """A float constant in a format, with a scale that its range fits."""
    if held.is_float:
        reach = max(float(np.abs(real).max()) / held.qmax, 1e-12) if held.scaled else 1.0
        scale = np.asarray(reach, np.float32)
        return Operand(held.encode(real, scale), scale, 0, real.shape)
    q = activation_qparams(float(real.min()), float(real.max()), dtype=held, grid=grid)
    return Operand(
        q.dtype.encode(real, q.scale, q.zero_point), np.asarray(q.scale, np.float32), q.zero_point, real.shape
    )


def pair(values: Any) -> tuple[int, int]:
    """Two whole numbers of an attribute."""
    a, b = (int(v) for v in values)
    return a, b


def four(values: Any) -> tuple[int, int, int, int]:
    """Four whole numbers of an attribute."""
    a, b, c, d = (int(v) for v in values)
    return a, b, c, d
