"""What the benchmarks share: where the data is, compiling a case, and printing a row of the results."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import hwptq
from hwptq.cli.progress_display import TerminalProgress

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Case:
    """Files of a model in the data folder; `bound`: points of accuracy that may be lost."""

    folder: str
    model: str = "model.onnx"
    preprocess: str | None = "preprocess.toml"
    bound: float | None = None
    calibration: str = "calib.npz"
    evaluation: str = "eval.npz"


CASES = {
    "demo": Case("digits", "digits.onnx", "preprocess.toml", 1.0, "calibration.npz", "evaluation.npz"),
    "resnet20": Case("ci-tiny", "resnet20.onnx", "resnet20.preprocess.toml", 3.0),
    "resnet8": Case("ci-tiny", "resnet8.onnx", "resnet8.preprocess.toml", 3.0),
    "cifar10-resnet20": Case("cifar10-resnet20", bound=0.3),
    "imagenet-mobilenetv1-075": Case(
        "imagenet-mobilenetv1-075", bound=1.0, calibration="calibration", evaluation="evaluation"
    ),
    "tiny-kws": Case("tiny-kws", bound=0.5),
    "imagenet-squeezenet11": Case(
        "imagenet-squeezenet11",
        bound=0.3,
        calibration="../imagenet-mobilenetv1-075/calibration",
        evaluation="../imagenet-mobilenetv1-075/evaluation",
    ),
    "face-rfb320": Case("face-rfb320", calibration="calibration", evaluation="evaluation"),
    "tiny-ad": Case("tiny-ad", preprocess=None),
    "coco-nanodet-m": Case("coco-nanodet-m", calibration="calibration", evaluation="evaluation"),
}


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with --data."""
    command = argparse.ArgumentParser(description=description)
    command.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of the models"
    )
    return command


def paths(name: str, data: Path) -> dict[str, Path | None]:
    """The files of a case, as arguments of hwptq.compile. Exits where they are absent."""
    case = CASES[name]
    folder = (ROOT / "examples" if name == "demo" else data) / case.folder
    if not (folder / case.model).is_file():
        sys.exit(f"{folder / case.model} is missing: give the folder of the models with --data")
    return {
        "model": folder / case.model,
        "calibration_data": folder / case.calibration,
        "evaluation_data": folder / case.evaluation,
        "preprocess": folder / case.preprocess if case.preprocess else None,
    }


@contextmanager
def compiled(
    name: str, target: str, data: Path, options: hwptq.Options | None = None
) -> Iterator[hwptq.CompiledModel]:
    """A case compiled into a folder that lives as long as the block."""
    with tempfile.TemporaryDirectory() as folder, TerminalProgress() as progress:
        files = {key: str(path) if path else None for key, path in paths(name, data).items()}
        yield hwptq.compile(
            **files, target=target, output=Path(folder, "out"), options=options, progress=progress
        )


def line(case: str, figure: str, good: bool) -> str:
    """One row for RESULTS.md."""
    return f"| {date.today()} | {case} | {figure} | {'met' if good else '**missed**'} |"


def row(case: str, figure: str, good: bool) -> None:
    """Print one row for RESULTS.md; the process fails where the figure misses its bound."""
    print(line(case, figure, good))
    if not good:
        sys.exit(1)
