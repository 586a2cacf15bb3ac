"""The demo, and real models with their data, which are no part of the repository.

They are looked for in $HWPTQ_DATA, or in shared/data inside or beside the checkout.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwptq

ROOT = Path(__file__).resolve().parent.parent
_PLACES = (os.environ.get("HWPTQ_DATA"), ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
DATA = next((Path(p) for p in _PLACES if p and Path(p).is_dir()), None)


@dataclass(frozen=True)
class RealModel:
    """Files of a model; the demo's lie in examples/."""

    folder: str
    model: str = "model.onnx"
    preprocess: str = "preprocess.toml"
    calibration: str = "calib.npz"
    evaluation: str = "eval.npz"

    @property
    def path(self) -> Path:
        """The folder; the test is skipped where it is absent."""
        if self.folder == "digits":
            return ROOT / "examples" / "digits"
        if DATA is None or not (DATA / self.folder).is_dir():
            pytest.skip(f"the data of {self.folder} is not here; name its parent folder in HWPTQ_DATA")
        return DATA / self.folder

    def arguments(self, calibration: int, evaluation: int) -> dict[str, Any]:
        """Arguments of hwptq.compile: the first samples of each file."""
        return {
            "model": self.path / self.model,
            "preprocess": self.path / self.preprocess,
            "calibration_data": _first(self.path / self.calibration, calibration),
            "evaluation_data": _first(self.path / self.evaluation, evaluation),
        }

    def compiled(self, target: str, output: Path, calibration: int = 8, evaluation: int = 6) -> Any:
        """The model compiled into `output`."""
        return hwptq.compile(**self.arguments(calibration, evaluation), target=target, output=output)


def _first(file: Path, count: int) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return {key: arrays[key][:count] for key in arrays.files}


MODELS = {
    "demo": RealModel("digits", "digits.onnx", "preprocess.toml", "calibration.npz", "evaluation.npz"),
    "resnet8": RealModel("ci-tiny", "resnet8.onnx", "resnet8.preprocess.toml"),
    "resnet20": RealModel("ci-tiny", "resnet20.onnx", "resnet20.preprocess.toml"),
    "tiny-kws": RealModel("tiny-kws"),
}
