"""A compiled model on disk: load it, and run it here or under the emulator it was made for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .backends.memory_plan import Tensor
from .backends.run_program import run_program
from .backends.static_program import StaticProgram
from .errors import InputError
from .output_folder import METADATA
from .report.typed import Report


@dataclass(frozen=True)
class CompiledModel:
    """An output folder of hwptq. Times of `run` mean nothing: an emulator may stand behind it."""

    folder: Path
    program: str
    run_command: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @cached_property
    def report(self) -> dict[str, Any]:
        """report.json."""
        return dict(json.loads((self.folder / "report.json").read_text(encoding="utf-8")))

    @cached_property
    def typed_report(self) -> Report:
        """The report by attributes: typed_report.coverage.macs_quantized."""
        return Report.of(self.report)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of one sample, by name. Raises InputError where an input is missing or misshapen."""
        (outputs,) = self.run_stream([inputs])
        return outputs

    def run_stream(self, samples: Iterable[Mapping[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
        """The outputs of each sample, in one run of the program."""
        command = [*self.run_command, str((self.folder / self.program).resolve())]
        if shutil.which(command[0]) is None:
            raise InputError(f"{self.folder}: {command[0]} not found; it is needed to run this program")
        for arrays in run_program(command, self.inputs, self.outputs, map(self._checked, samples)):
            yield {tensor.name: array for tensor, array in zip(self.outputs, arrays, strict=True)}

    def _checked(self, sample: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        for tensor in self.inputs:
            if tensor.name not in sample:
                raise InputError(f"input {tensor.name!r} is missing")
            array = np.asarray(sample[tensor.name])
            if array.shape != tensor.shape or array.dtype != tensor.dtype:
                raise InputError(
                    f"input {tensor.name!r}: {array.dtype} {list(array.shape)} given, "
                    f"{tensor.dtype} {list(tensor.shape)} needed"
                )
        return sample


def write_metadata(
    folder: Path, model: str, target: str, run: tuple[str, ...], program: StaticProgram
) -> None:
    """metadata.json: what `load` needs."""
    data = {
        "schema": 1,
        "model": model,
        "target": target,
        "program": program.program.name,
        "run": list(run),
        "inputs": [asdict(t) for t in program.inputs],
        "outputs": [asdict(t) for t in program.outputs],
    }
    (folder / METADATA).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def load(folder: str | Path) -> CompiledModel:
    """The model in an output folder of `hwptq compile`. Raises InputError where there is none."""
    folder = Path(folder)
    try:
        data = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        inputs, outputs = (
            tuple(Tensor(t["name"], tuple(t["shape"]), t["dtype"]) for t in data[key])
            for key in ("inputs", "outputs")
        )
        return CompiledModel(folder, data["program"], tuple(data["run"]), inputs, outputs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: no output folder of hwptq ({error})") from error
