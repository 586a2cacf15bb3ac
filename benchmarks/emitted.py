"""Top-1 of a case as quantized by given options, of emitted code that runs on this machine.

Less than hwptq.compile does: the reference is left out, which makes many runs over a whole data set possible.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from common import paths

import hwptq
from hwptq.backends.static_c.static_program import build_program
from hwptq.data.dataset import Dataset, Sample, open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.executors.executor import executor_for
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import Quantized, lower, quantize
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.report.verify import run_emitted
from hwptq.targets import Descriptor, load_target


@dataclass(frozen=True)
class Opened:
    """A case with its data."""

    path: Path
    model: Model
    calibration: Dataset
    evaluation: Dataset


def open_case(name: str, data: Path, samples: int | None) -> Opened:
    """The files of a case; the first `samples` of its evaluation data, or all."""
    files = paths(name, data)
    model = import_onnx(files["model"])
    preprocess = load_preprocess(files["preprocess"])
    first, second = (
        open_dataset(files[key], model.inputs, preprocess) for key in ("calibration_data", "evaluation_data")
    )
    return Opened(files["model"], model, first, second.take(samples) if samples else second)


def emitted_top1(case: Opened, target: str, options: hwptq.Options) -> tuple[float, float]:
    """(top-1 in percent of the emitted code, seconds that quantizing took)."""
    device, progress = load_target(target), Progress()
    quantized = quantize(case.model.module, Job(device, case.calibration, options, progress))
    top1 = _top1((sample.label, outputs) for sample, outputs in emitted_outputs(case, device, quantized))
    return top1, sum(progress.seconds.values())


def emitted_outputs(case: Opened, device: Descriptor, quantized: Quantized) -> Iterator[tuple[Sample, Any]]:
    """Each sample of the evaluation data with what emitted code makes of it."""
    graphs = lower(quantized, Job(device))
    with tempfile.TemporaryDirectory() as folder:
        program = build_program(graphs.kernels, case.model.outputs, case.model.name, device, Path(folder))
        yield from run_emitted(executor_for(program), case.evaluation, Progress())


def session_top1(case: Opened, path: Path) -> float:
    """Top-1 in percent of an ONNX file in ONNX Runtime, which runs QDQ nodes on its integer kernels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _top1((sample.label, session.run(None, sample.inputs)) for sample in case.evaluation)


def _top1(results: Iterable[tuple[Any, Any]]) -> float:
    hits = [int(np.argmax(outputs[0]) == label) for label, outputs in results]
    return 100 * sum(hits) / len(hits)
