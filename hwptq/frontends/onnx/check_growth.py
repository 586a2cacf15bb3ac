"""Do caches of a fixed size give what the growing ones of the file give? Step by step, by another evaluator.

The other check compares with the model behind that rewrite, so a fault of it would be invisible there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from hwptq.errors import UnsupportedError

from .peer import by_reference

#: What runs the imported module on the inputs of its step, and gives its outputs by name.
Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Difference = Callable[[np.ndarray, np.ndarray], float]
Values = dict[str, np.ndarray]
_STEPS = 3


@dataclass(frozen=True)
class Growth:
    """The model as the file has it, whose caches grow: (input, output, the axis that grows) of each.

    position: the input of the fixed model that counts steps; masks: inputs [1, rows] of the file alone.
    """

    model: onnx.ModelProto
    caches: tuple[tuple[str, str, int], ...]
    position: str
    masks: tuple[str, ...]

    def check(
        self, run: Run, sample: Mapping[str, np.ndarray], difference: Difference, noise: float, seconds: float
    ) -> str:  # fmt: skip
        """Compare some steps behind the first row of the sample's caches; why they were not, "" if they were.

        Raises UnsupportedError that names the first output that differs by more than `noise`.
        """
        end = time.monotonic() + seconds
        first = {past: _rows(sample[past], axis, 1) for past, _, axis in self.caches}
        growing, fixed = dict(first), {past: _room(first[past], sample[past]) for past in first}
        size = min(sample[past].shape[axis] for past, _, axis in self.caches)
        for step in range(1, min(1 + _STEPS, size)):
            place = np.full_like(sample[self.position], step)
            found = run({**sample, **fixed, self.position: place})
            given = self._given(sample, growing, place, step)
            peer = by_reference(self.model, given, max(0.0, end - time.monotonic()))
            if peer.reason:
                return f"steps of the growing caches were not compared: {peer.reason}"
            for name, theirs, mine in self._pairs(peer.values, found):
                if (apart := difference(theirs, mine)) > noise:
                    raise UnsupportedError(
                        f"output {name!r} of step {step} was imported wrongly: it differs by {apart:.2g} of "
                        f"its size from what {peer.name} gives for the growing caches of the file; export "
                        f"caches of a fixed size, or report it"
                    )
            growing = {past: peer.values[present] for past, present, _ in self.caches}
            fixed = {past: found[present] for past, present, _ in self.caches}
        return ""

    def _given(
        self, sample: Mapping[str, np.ndarray], growing: Values, place: np.ndarray, step: int
    ) -> Values:  # fmt: skip
        """The inputs of the file's model."""
        kinds = {i.name: i.type.tensor_type.elem_type for i in self.model.graph.input}
        others = {name: value for name, value in sample.items() if name in kinds}
        dtype_of = onnx.helper.tensor_dtype_to_np_dtype
        masks = {name: np.ones((1, step + 1), dtype_of(kinds[name])) for name in self.masks}
        counted = {self.position: place} if self.position in kinds else {}
        return {**others, **masks, **counted, **growing}

    def _pairs(
        self, theirs: Mapping[str, np.ndarray], mine: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:  # fmt: skip
        """(output, its values in the file, in the fixed model): of a cache the rows so far."""
        axes = {present: axis for _, present, axis in self.caches}
        for output in self.model.graph.output:
            name = output.name
            wanted, found = np.asarray(theirs[name]), mine[name]
            yield name, wanted, _rows(found, axes[name], wanted.shape[axes[name]]) if name in axes else found


def _rows(array: np.ndarray, axis: int, count: int) -> np.ndarray:
    return array[(*(slice(None) for _ in range(axis)), slice(count))]


def _room(rows: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The rows in front of zeros, in the shape of `like`."""
    room = np.zeros_like(like)
    room[tuple(slice(n) for n in rows.shape)] = rows
    return room
