"""Evidence: what running the emitted code on samples has shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwptq.backends.program import Tensor
from hwptq.data.dataset import Sample
from hwptq.quant.histogram import Histogram

from .accuracy import Score, Sqnr
from .directions import Directions
from .examples import EXAMPLES, Example
from .golden import output_keys
from .histograms import SAMPLES, histogram_of

#: Samples on which the noise of each layer is measured, and which are kept as golden ones.
LAYER_SAMPLES = 32


@dataclass
class Evidence:
    """What running the emitted code has shown."""

    executor: str
    score: Score
    samples: int = 0
    first: int = 0  # samples of the data before these
    values: int = 0
    mismatches: int = 0
    first_mismatch: str | None = None  # the layer or output that differs first
    layers: dict[str, Sqnr] = field(default_factory=dict)
    kept: dict[str, Directions] = field(default_factory=dict)  # of layers, in the order of the graph
    kept_outputs: dict[str, Directions] = field(default_factory=dict)
    golden: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seen: dict[str, Histogram] = field(default_factory=dict)  # what float32 activations held, by label
    examples: list[Example] = field(default_factory=list)
    steps_alone: str = ""  # what has run the code, where it can't have it read a prompt

    @property
    def position(self) -> int:
        """The number of the next sample in the data."""
        return self.first + self.samples

    def merge(self, other: Evidence) -> None:
        """Add what the samples behind these have shown."""
        self.executor = self.executor or other.executor
        self.score.merge(other.score)
        self.samples += other.samples
        self.values += other.values
        self.mismatches += other.mismatches
        self.first_mismatch = self.first_mismatch or other.first_mismatch
        for name, noise in other.layers.items():
            self.layers[name] = self.layers.get(name, Sqnr()) + noise
        for held, more in ((self.kept, other.kept), (self.kept_outputs, other.kept_outputs)):
            for name, directions in more.items():
                held.setdefault(name, Directions()).merge(directions)
        for name, arrays in other.golden.items():
            self.golden.setdefault(name, []).extend(arrays)
        for label, histogram in other.seen.items():
            self.seen[label] = self.seen[label].merge(histogram) if label in self.seen else histogram
        self.examples = [*self.examples, *other.examples][:EXAMPLES]

    def first_inputs(self, inputs: Sequence[Tensor]) -> list[dict[str, np.ndarray]]:
        """The inputs of the first samples."""
        columns = [self.golden.get(tensor.name, []) for tensor in inputs]
        names = [tensor.name for tensor in inputs]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def compare(self, name: str, expected: np.ndarray, found: np.ndarray) -> None:
        """Count the values that differ in their bits."""
        self.values += expected.size
        differ = int(np.count_nonzero(_bits(expected) != _bits(found)))
        self.mismatches += differ
        if differ and self.first_mismatch is None:
            self.first_mismatch = name

    def measure(self, layer: str, exact: np.ndarray, found: np.ndarray) -> None:
        """Compare what a layer gives with what it gives in float32."""
        self.layers.setdefault(layer, Sqnr()).add(exact, found)
        self.kept.setdefault(layer, Directions()).add(exact, found)

    def measure_outputs(
        self, names: Iterable[str], exact: Sequence[np.ndarray], found: Sequence[np.ndarray]
    ) -> None:
        """The same of the outputs of one of the first samples."""
        if self.position < LAYER_SAMPLES:
            for name, x, y in zip(names, exact, found, strict=True):
                if x.dtype.kind == "f" and x.shape == y.shape and x.size:
                    self.kept_outputs.setdefault(name, Directions()).add(x, y)

    def look(self, label: str, exact: np.ndarray) -> None:
        """Count what a float32 activation holds in one of the first samples."""
        if self.position < SAMPLES and exact.size and exact.dtype == np.float32:
            held = histogram_of(exact)
            self.seen[label] = self.seen[label].merge(held) if label in self.seen else held

    def show(
        self, sample: Sample, exact: list[np.ndarray], others: dict[str, list[np.ndarray] | None]
    ) -> None:  # fmt: skip
        """Keep one of the first samples, and the last of the other outputs that there are, to be seen."""
        if self.position < EXAMPLES:
            kind, found = [(k, o) for k, o in others.items() if o is not None][-1]
            outputs = {"float32": exact, kind: found}
            self.examples.append(Example(sample.inputs, sample.label, outputs))

    def keep(self, sample: Sample, outputs: list[np.ndarray]) -> None:
        """Put one of the first samples and its outputs among the golden ones."""
        if self.position < LAYER_SAMPLES:
            keys = output_keys(sample.inputs, len(outputs))
            for name, array in {**sample.inputs, **dict(zip(keys, outputs, strict=True))}.items():
                self.golden.setdefault(name, []).append(array)


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
