"""A compiled model on disk: load it, and run it here, in this process or under its emulator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .backends.program import Program, Tensor
from .errors import InputError
from .executors.executor import Executor, executor_for
from .executors.requests import Request, inputs_of, request_of
from .generation import Generation, Sampling
from .metadata import program_of
from .no_device import check_no_device
from .output_folder import METADATA
from .report.typed import Report


@dataclass(frozen=True)
class CompiledModel:
    """An output folder of hwptq.

    executor: the name of the one that runs it, such as "ssh:HOST"; None = in this process where the code runs
    here, else a process of its own. Calls from several threads are safe. Where an emulator stands behind it,
    times of `run` mean nothing.
    """

    folder: Path
    program: Program
    executor: str | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.program.outputs

    @cached_property
    def report(self) -> dict[str, Any]:
        """report.json. Raises InputError where it can't be read."""
        path = self.folder / "report.json"
        try:
            found = json.loads(check_no_device(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: can't be read ({error}); compile the model again") from error
        if not isinstance(found, dict):
            raise InputError(f"{path}: no report; compile the model again")
        return found

    @cached_property
    def running(self) -> Executor:
        """What runs it. Raises InputError where nothing here can."""
        return executor_for(self.program, self.executor)

    @cached_property
    def typed_report(self) -> Report:
        """The report by attributes: typed_report.coverage.macs_quantized."""
        return Report.of(self.report)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one sample, by name. Raises InputError where an input is missing or misshapen."""
        return self._named(self.running.run(self._checked(inputs)))

    def run_stream(self, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """The outputs of each sample; a process of its own is started once for all of them."""
        return map(self._named, self.running.run_stream(map(self._checked, samples)))

    def generate(
        self,
        prompt: Sequence[int],
        most: int = 64,
        sampling: Sampling | None = None,
        stop: Iterable[int] = (),
    ) -> Iterator[int]:
        """Tokens behind `prompt`, as they are made: see Generation, whose errors are raised here too."""
        return Generation(self, prompt, most, sampling or Sampling(), frozenset(stop)).tokens()

    @property
    def reads_prompts(self) -> bool:
        """Whether several tokens of a text can be read at once: samples of run_stream may be prompts, with
        the inputs of Program.prompt."""
        return self.program.prompt is not None and self.running.prompts

    def close(self) -> None:
        """Give back what an executor holds elsewhere, such as a file on a board."""
        if "running" in self.__dict__:
            self.running.close()

    def _named(self, outputs: list[np.ndarray]) -> dict[str, np.ndarray]:
        return {tensor.name: array for tensor, array in zip(self.outputs, outputs, strict=True)}

    def _checked(self, sample: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        request = request_of(self.program, sample) if sample else Request.STEP
        if request is Request.PROMPT and not self.reads_prompts:
            raise InputError(f"{self.running.description} reads no prompts: give steps alone")
        for tensor in inputs_of(self.program, request):
            if tensor.name not in sample:
                raise InputError(f"input {tensor.name!r} is missing")
            array = np.asarray(sample[tensor.name])
            if array.shape != tensor.shape or array.dtype != tensor.numpy_dtype:
                raise InputError(
                    f"input {tensor.name!r}: {array.dtype} {list(array.shape)} given, "
                    f"{tensor.dtype} {list(tensor.shape)} needed"
                )
        return sample


def load(folder: str | Path, executor: str | None = None, trust: bool = False) -> CompiledModel:
    """The model in an output folder of `hwptq compile`; executor: see CompiledModel.

    trust: run it under whatever command its metadata name, as a trusted descriptor may say.

    Raises InputError where there is none, or its metadata.json is not as hwptq writes it.
    """
    folder = Path(folder)
    try:
        text = check_no_device(folder / METADATA).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        why = f"has no {METADATA}" if folder.is_dir() else "is a file" if folder.exists() else "is not there"
        raise InputError(
            f"{folder}: no output folder of hwptq ({why}); give the one that --output of hwptq compile named"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no output folder of hwptq ({error})") from error
    return CompiledModel(folder, program_of(folder, text, trust), executor)
