"""Running a static program, natively or under an emulator: samples in, outputs out, as a stream."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np

from hwptq.backends.program import Tensor
from hwptq.errors import HwptqError

_STATUS = {2: "its input ended in the middle of a sample", 3: "a kernel ran out of scratch memory"}
_SIGILL = (-4, 132)


class ProgramFailed(HwptqError):
    """A program that ended with a status of its own, and the last line that it said."""

    def __init__(self, text: str, status: int, said: str):
        super().__init__(text)
        self.status, self.said = status, said


def run_program(
    command: Sequence[str],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    samples: Iterable[Mapping[str, np.ndarray]],
) -> Iterator[list[np.ndarray]]:
    """The outputs of each sample, as soon as the program has written them.

    `command` starts the program; `samples` hold one array per input. Raises HwptqError where the program
    fails (a ProgramFailed, where it has started); an error while reading `samples` is raised as it is.
    """
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise HwptqError(f"the program {command[-1]} can't be started: {error.strerror}") from error
    assert process.stdin
    assert process.stdout
    assert process.stderr
    failure: list[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(process.stdin, inputs, samples, failure), daemon=True)
    errors: list[bytes] = []
    drain = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
    feeder.start()
    drain.start()
    try:
        while (arrays := _read_outputs(process.stdout, outputs)) is not None:
            yield arrays
        feeder.join()
        drain.join()
        if failure:
            raise failure[0]
        if process.wait():
            raise _problem(command, process.returncode, errors)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            _close(stream)


def _feed(stdin: IO[bytes], inputs: Sequence[Tensor], samples: Any, failure: list[BaseException]) -> None:
    """Write samples until the program stops reading; what goes wrong in `samples` is kept for the reader."""
    try:
        for sample in samples:
            for tensor in inputs:
                array = np.ascontiguousarray(sample[tensor.name], dtype=tensor.dtype)
                stdin.write(array.tobytes())
            stdin.flush()
    except (BrokenPipeError, ValueError) as error:
        if isinstance(error, ValueError) and not stdin.closed:
            failure.append(error)
    except Exception as error:
        failure.append(error)
    _close(stdin)


def _close(stream: Any) -> None:
    with suppress(OSError):  # what was buffered found no reader
        stream.close()


def _read_outputs(stdout: IO[bytes], outputs: Sequence[Tensor]) -> list[np.ndarray] | None:
    """One sample's outputs, or None at the end."""
    arrays = []
    for tensor in outputs:
        data = stdout.read(tensor.nbytes)
        if len(data) < tensor.nbytes:
            return None
        arrays.append(np.frombuffer(data, tensor.dtype).reshape(tensor.shape))
    return arrays


def _problem(command: Sequence[str], status: int, errors: list[bytes]) -> ProgramFailed:
    lines = b"".join(errors).decode(errors="replace").strip().splitlines()
    said = lines[-1] if lines else ""
    why = f"failed with status {status}: {_STATUS.get(status, 'unknown')}"
    if status in _SIGILL or "Illegal instruction" in said:
        why = f"uses instructions that this CPU lacks ({command[0]})"
    return ProgramFailed(f"the program {why}{f': {said}' if said else ''}", status, said)
