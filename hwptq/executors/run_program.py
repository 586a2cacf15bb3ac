"""Running a static program, natively or under an emulator: samples in, outputs out, as a stream."""

from __future__ import annotations

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

import numpy as np

from hwptq.backends.program import Program, Tensor
from hwptq.errors import HwptqError

from .requests import Request, inputs_of, outputs_of, request_of

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
    return _run(command, lambda: outputs, (_encoded(inputs, sample) for sample in samples))


def run_requests(program: Program, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """The same of a program that reads prompts, where samples may be requests of any kind."""
    kinds: deque[Request] = deque()

    def encoded() -> Iterator[bytes]:
        for sample in samples:
            request = request_of(program, sample)
            kinds.append(request)
            yield bytes([request]) + _encoded(inputs_of(program, request), sample)

    def outputs() -> Sequence[Tensor]:
        return outputs_of(program, kinds.popleft()) if kinds else program.outputs

    return _run([*program.command, "--prompts"], outputs, encoded())


def _run(
    command: Sequence[str], outputs: Callable[[], Sequence[Tensor]], samples: Iterator[bytes]
) -> Iterator[list[np.ndarray]]:
    """outputs: of the next sample, called when the first byte of them is there."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise HwptqError(f"the program {command[-1]} can't be started: {error.strerror}") from error
    assert process.stdin
    assert process.stdout
    assert process.stderr
    failure: list[BaseException] = []
    feeder = threading.Thread(target=_feed, args=(process.stdin, samples, failure), daemon=True)
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


def _encoded(inputs: Sequence[Tensor], sample: Mapping[str, np.ndarray]) -> bytes:
    """A sample as the program reads it."""
    return b"".join(np.ascontiguousarray(sample[t.name], dtype=t.dtype).tobytes() for t in inputs)


def _feed(stdin: IO[bytes], samples: Iterator[bytes], failure: list[BaseException]) -> None:
    """Write samples until the program stops reading; what goes wrong in `samples` is kept for the reader."""
    try:
        for sample in samples:
            stdin.write(sample)
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


def _read_outputs(
    stdout: IO[bytes], outputs: Callable[[], Sequence[Tensor]]
) -> list[np.ndarray] | None:  # fmt: skip
    """One sample's outputs, or None at the end."""
    arrays = []
    if not stdout.peek(1):  # type: ignore[attr-defined]
        return None
    for tensor in outputs():
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
