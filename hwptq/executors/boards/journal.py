"""What a board has computed before its connection was lost, so that the next run goes on from there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import chain
from pathlib import Path

import numpy as np
import platformdirs

from hwptq.backends.program import Program, Tensor
from hwptq.executors.executor import Sample

Outputs = list[np.ndarray]
_DIGEST = 32  # bytes


class Journal:
    """A file of records of equal length: the SHA-256 of a sample's inputs, and its outputs.

    A record that is cut short, where the process was killed, counts for nothing.
    """

    def __init__(self, file: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]):
        self.file, self.inputs, self.outputs = file, inputs, outputs
        self._size = _DIGEST + sum(tensor.nbytes for tensor in outputs)

    @classmethod
    def of(cls, program: Program, code: Path, place: str) -> Journal:
        """That of this very code at one place, in the user's cache."""
        name = sha256(code.read_bytes() + b"\0" + place.encode()).hexdigest()[:32]
        folder = Path(platformdirs.user_cache_dir("hwptq")) / "boards"
        return cls(folder / name, program.inputs, program.outputs)

    def digest(self, sample: Sample) -> bytes:
        """SHA-256 of a sample's inputs, as the program reads them."""
        found = sha256()
        for tensor in self.inputs:
            found.update(np.ascontiguousarray(sample[tensor.name], dtype=tensor.dtype).tobytes())
        return found.digest()

    def records(self) -> Iterator[tuple[bytes, Outputs]]:
        """Those that are complete, in their order."""
        with suppress(FileNotFoundError), self.file.open("rb") as stream:
            while len(record := stream.read(self._size)) == self._size:
                yield record[:_DIGEST], self._outputs(record[_DIGEST:])

    def _outputs(self, data: bytes) -> Outputs:
        arrays, at = [], 0
        for tensor in self.outputs:
            part = np.frombuffer(data, tensor.numpy_dtype, tensor.nbytes // tensor.numpy_dtype.itemsize, at)
            arrays.append(part.reshape(tensor.shape))
            at += tensor.nbytes
        return arrays

    def keep(self, count: int) -> None:
        """Forget all but the first `count` records."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as stream:
            stream.truncate(count * self._size)

    def add(self, digest: bytes, outputs: Outputs) -> None:
        """One more record, on the disk when this returns to the system."""
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in outputs)
        with self.file.open("ab") as stream:
            stream.write(digest + data)

    def remove(self) -> None:
        """There is nothing to go on with."""
        self.file.unlink(missing_ok=True)


def resumed(
    journal: Journal, samples: Iterable[Sample], live: Callable[[Iterator[Sample]], Iterable[Outputs]]
) -> Iterator[Outputs]:
    """The outputs of each sample: known ones from the journal, the others by `live`, which are noted.

    The journal goes when all are there. It serves a run on the same samples in the same order; from the first
    that differs on it counts for nothing.
    """
    waiting, known, behind = iter(samples), 0, list[Sample]()
    for digest, outputs in journal.records():
        sample = next(waiting, None)
        if sample is None:
            break
        if journal.digest(sample) != digest:
            behind.append(sample)
            break
        known += 1
        yield outputs
    first = next(rest := chain(behind, waiting), None)
    if first is not None:
        journal.keep(known)
        digests: deque[bytes] = deque()

        def feed() -> Iterator[Sample]:
            for sample in chain([first], rest):
                digests.append(journal.digest(sample))
                yield sample

        for outputs in live(feed()):
            journal.add(digests.popleft(), outputs)
            yield outputs
    journal.remove()
