"""The constants of a program, one behind the other, as arrays that nobody copies until they are written."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Constants:
    """Arrays of bytes in the order of memory, each at a multiple of `alignment` bytes."""

    arrays: tuple[np.ndarray, ...] = ()
    alignment: int = 1

    @property
    def nbytes(self) -> int:
        """Of all, with what lies between them."""
        size = 0
        for array in self.arrays:
            size += -size % self.alignment + array.nbytes
        return size

    def write(self, path: Path) -> None:
        """Their bytes, in a file."""
        with path.open("wb") as file:
            for array in self.arrays:
                file.write(b"\0" * (-file.tell() % self.alignment))
                file.write(array.data)


class Laid:
    """Lays constants one behind the other; equal ones are stored once."""

    def __init__(self, alignment: int):
        self._alignment, self._size = alignment, 0
        self._arrays: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}  # digest -> offset

    def offset(self, array: np.ndarray) -> int:
        """Where an array lies."""
        values = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        known = sha256(values.data).digest()
        if known not in self._known:
            self._size += -self._size % self._alignment
            self._known[known] = self._size
            self._arrays.append(values)
            self._size += values.nbytes
        return self._known[known]

    @property
    def constants(self) -> Constants:
        """All that were laid so far."""
        return Constants(tuple(self._arrays), self._alignment)
