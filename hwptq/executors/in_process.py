"""In this process: the model's shared library, called through ctypes. Calls from several threads are safe."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.backends.host import cpu_model
from hwptq.backends.program import Library, Program, Tensor
from hwptq.errors import HwptqError

from .executor import Executor, Sample
from .process import why_not_native
from .requests import Request, inputs_of, request_of


class InProcess(Executor):
    """A library that this process has loaded; each call that is under way has memory of its own."""

    name = "in process"
    preference = 2
    timed = True
    prompts = True

    @classmethod
    def why_not(cls, program: Program) -> str | None:
        if program.library is None:
            return "it has no library for this process"
        return why_not_native(program.machine)

    def __init__(self, program: Program):
        super().__init__(program)
        assert program.library
        self._library = program.library
        try:
            loaded = _opened(self._library.file)
            names = [self._library.symbol, *([self._library.prompt] if program.prompt else [])]
            functions = [getattr(loaded, name) for name in names]
        except (OSError, AttributeError) as error:
            raise HwptqError(f"{self._library.file} can't be loaded: {error}") from error
        for function in functions:
            function.argtypes = [ctypes.c_void_p] * 3
            function.restype = ctypes.c_int32
        self._functions = dict(zip((Request.STEP, Request.PROMPT), functions, strict=False))
        self._reset = self._resetting(loaded)
        self._idle: list[_Memory] = []  # of calls that are over

    @property
    def description(self) -> str:
        return f"native, in process: {cpu_model()}"

    def _resetting(self, loaded: ctypes.CDLL) -> Any:
        """What begins a text in an arena, None where there are no caches."""
        if not self._library.reset:
            return None
        try:
            reset = getattr(loaded, self._library.reset)
        except AttributeError as error:
            raise HwptqError(f"{self._library.file} can't be loaded: {error}") from error
        reset.argtypes, reset.restype = [ctypes.c_void_p], None
        return reset

    def run(self, sample: Sample) -> list[np.ndarray]:
        return self._alone(sample) if self._reset is None else next(self._text([sample]))

    def run_stream(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        if self._reset is None:
            return map(self._alone, samples)
        return self._text(samples)

    def _text(self, samples: Iterable[Sample]) -> Iterator[list[np.ndarray]]:
        """Steps of one text after the other, in memory of their own."""
        state, memory = self.program.state, _Memory(self.program, self._library)
        assert state
        at = None if state.position is None else self.program.inputs[state.position].name
        self._reset(memory.arena)
        for sample in samples:
            request = request_of(self.program, sample)
            if request is Request.CACHES:
                yield [memory.state(state.nbytes)]
                continue
            if at is not None and not np.any(sample[at]):
                self._reset(memory.arena)
            yield self._computed(memory, sample, request)

    def _alone(self, sample: Sample) -> list[np.ndarray]:
        memory = None
        with suppress(IndexError):  # another thread may have taken the last one
            memory = self._idle.pop()
        memory = memory or _Memory(self.program, self._library)
        outputs = self._computed(memory, sample)
        self._idle.append(memory)
        return outputs

    def _computed(
        self, memory: _Memory, sample: Sample, request: Request = Request.STEP
    ) -> list[np.ndarray]:  # fmt: skip
        outputs, inputs = memory.prepare(sample, request)
        stopped = self._functions[request](inputs, memory.output_pointers, memory.arena)
        if stopped:
            raise HwptqError(f"kernel {stopped} of {self._library.file.name} ran out of scratch memory")
        return outputs


def _opened(file: Path) -> ctypes.CDLL:
    """A library by a name that no other was opened by.

    The loader takes a library that it has by a name for the file there now, also where another has replaced
    it since, as when a model is compiled to the same folder again.
    """
    with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
        link = Path(folder, file.name)
        link.symlink_to(file.resolve())
        return ctypes.CDLL(str(link))


@dataclass(frozen=True)
class _Inputs:
    """Inputs of a kind of sample: places for those that lie badly, their addresses, pointers to them."""

    tensors: Sequence[Tensor]
    places: list[np.ndarray]
    addresses: list[int]
    pointers: Any


class _Memory:
    """What one call needs beside its outputs: an arena, pointers, and places for inputs that lie badly."""

    def __init__(self, program: Program, library: Library):
        self._outputs, self._library = program.outputs, library
        self._spare = library.alignment + library.readable_behind
        kinds = [Request.STEP, *([Request.PROMPT] if program.prompt else [])]
        self._inputs = {kind: self._places(inputs_of(program, kind)) for kind in kinds}
        self._arena = self._aligned(library.arena_bytes)
        self.arena = self._arena.ctypes.data
        self.output_pointers = (ctypes.c_void_p * len(program.outputs))()

    def _aligned(self, nbytes: int) -> np.ndarray:
        """uint8 [nbytes] at an address that kernels take, with what they may read behind it."""
        room = np.empty(nbytes + self._spare, np.uint8)
        first = -room.ctypes.data % self._library.alignment
        return room[first : first + nbytes]

    def _places(self, tensors: Sequence[Tensor]) -> _Inputs:
        places = [self._aligned(t.nbytes).view(t.numpy_dtype).reshape(t.shape) for t in tensors]
        addresses = [place.ctypes.data for place in places]
        return _Inputs(tensors, places, addresses, (ctypes.c_void_p * len(tensors))())

    def state(self, nbytes: int) -> np.ndarray:
        """A copy of what the arena begins with."""
        return self._arena[:nbytes].copy()

    def prepare(self, sample: Sample, request: Request) -> tuple[list[np.ndarray], Any]:
        """Point to the inputs, and to new arrays for the outputs; these, and the pointers to the inputs."""
        library, held = self._library, self._inputs[request]
        for i, tensor in enumerate(held.tensors):
            array = np.asarray(sample[tensor.name], tensor.numpy_dtype)
            address = array.ctypes.data if array.flags.c_contiguous else 1
            if address % library.alignment or library.readable_behind:
                np.copyto(held.places[i], array)
                address = held.addresses[i]
            held.pointers[i] = address
        outputs = []
        for i, tensor in enumerate(self._outputs):
            room = np.empty(tensor.nbytes + self._spare, np.uint8)
            address = room.ctypes.data
            first = -address % library.alignment
            self.output_pointers[i] = address + first
            outputs.append(np.ndarray(tensor.shape, tensor.numpy_dtype, room, first))
        return outputs, held.pointers
