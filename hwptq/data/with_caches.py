"""Steps of texts as data: what the caches of a model hold at each of them is computed on the way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import tvm

from hwptq.cache.digest import digest
from hwptq.evaluate.steps import Steps

from .dataset import Dataset, Sample


class WithCaches(Dataset):
    """The samples of `data`, which lack the caches of `module`, with them: each is a text's next step."""

    def __init__(self, data: Dataset, module: tvm.IRModule) -> None:
        self.name, self.count = data.name, data.count
        self._data, self._module = data, module

    def __iter__(self) -> Iterator[Sample]:
        steps = Steps(self._module)
        for sample in self._data:
            whole = steps.whole(sample.inputs)
            yield Sample(whole, sample.label)
            steps.run(sample.inputs)

    @property
    def once(self) -> bool:
        return self._data.once

    @property
    def divisible(self) -> bool:
        """A step needs all those before it."""
        return False

    @cached_property
    def identity(self) -> str | None:
        held = self._data.identity
        return None if held is None else digest(held, self._module)

    def take(self, limit: int) -> Dataset:
        return WithCaches(self._data.take(limit), self._module)

    def part(self, first: int, end: int | None) -> Dataset:
        if first:
            raise ValueError(f"{self.name}: steps can't begin at sample {first}")
        return self if end is None else self.take(end)
