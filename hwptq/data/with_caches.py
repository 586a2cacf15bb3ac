"""Steps of texts as data: what the caches of a model hold at each of them is computed on the way."""

from __future__ import annotations

from collections.abc import Iterator

import tvm

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

    def take(self, limit: int) -> Dataset:
        return WithCaches(self._data.take(limit), self._module)
