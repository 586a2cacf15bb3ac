"""compile: an ONNX file, data and a target -> a folder of machine code and its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from . import passes
from .accuracy import Score, drop, load_metric
from .artifact import CompiledModel, load, write_metadata
from .backends.shared_library import build_library
from .backends.static_program import StaticProgram, build_program
from .backends.toolchain import check_programs
from .calibration import CalibrationStats, calibrate
from .coverage import coverage
from .data import Dataset, from_batches, open_dataset
from .errors import AccuracyError, InputError, MismatchError, UnsupportedError
from .importer import Model, import_onnx
from .output_folder import staged
from .preprocess import Preprocess, load_preprocess
from .progress import Progress
from .report import build_report, write_report
from .targets import Descriptor, load_target
from .verify import Evidence, Graphs, verify

Stop = Callable[[], None]


@dataclass(frozen=True)
class Options:
    """How to quantize and what to insist on."""

    weight_granularity: str | None = None  # "tensor" | "channel"; None = the descriptor's choice
    exclude: str | None = None  # regular expression of node names that stay in float
    max_drop: float | None = None  # points of accuracy that may be lost
    samples: int | None = None  # evaluate the first N samples only
    metric: str | None = None  # "top1" | "module:function"
    trust_descriptor: bool = False


def compile(
    model: str | Path,
    target: str | Path,
    calibration_data: Any,
    evaluation_data: Any = None,
    preprocess: str | Path | Preprocess | None = None,
    output: str | Path = "out",
    options: Options | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile an ONNX file into `output` and verify the code by running it.

    Data: a path, "module:function", or an iterable of dicts (see data.py). Without evaluation data the code
    is verified on the calibration data. Raises a HwptqError: InputError, UnsupportedError (nothing
    quantized), MismatchError or AccuracyError; after the last two the folder is complete and its report says
    why.
    """
    options, progress = options or Options(), progress or Progress()
    device = load_target(target, trust=options.trust_descriptor)
    check_programs(device)
    score = load_metric(options.metric)
    with staged(Path(output)) as folder:
        with progress.stage("import"):
            imported = import_onnx(model)
            fused = fuse(imported.module)
            calibration, evaluation = _datasets(
                imported, calibration_data, evaluation_data, preprocess, options
            )
        with progress.stage("calibrate"):
            samples = progress.track(calibration, calibration.count)
            stats = calibrate(fused, (sample.inputs for sample in samples))
        with progress.stage("lower"):
            graphs = lower(fused, device, stats, options)
        with progress.stage("build"):
            program = build_program(graphs.kernels, imported.outputs, imported.name, device, folder)
            build_library(graphs.kernels, device, folder / "model.so")
        with progress.stage("verify"):
            evidence = verify(graphs, program, device, evaluation, score, progress)
        _write(folder, imported, device, graphs, program, evidence, progress)
    result = load(output)
    _gate(result.report, evidence, options)
    return result


def fuse(module: tvm.IRModule) -> tvm.IRModule:
    """Float passes: the outputs stay the same."""
    return tvm.ir.transform.Sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()])(module)


def lower(fused: tvm.IRModule, target: Descriptor, stats: CalibrationStats, options: Options) -> Graphs:
    """Quantize a fused module for `target`. Raises UnsupportedError where nothing of it can be quantized."""
    qdq = _run(passes.InsertQDQ(target, stats, options.weight_granularity, options.exclude), fused)
    integer = _run(passes.LowerToInteger(), qdq)
    found = coverage(fused, integer)
    if not found["nodes_quantized"]:
        reasons = "; ".join(f"{n['name']}: {n['reason']}" for n in found["nodes_float"][:3])
        raise UnsupportedError(f"nothing of the model can be quantized for {target.name} ({reasons})")
    return Graphs(fused, qdq, integer, _run(passes.SelectKernels(target), integer))


def _run(step: Any, module: tvm.IRModule) -> tvm.IRModule:
    return step(module)


def _datasets(
    model: Model, calibration: Any, evaluation: Any, preprocess: Any, options: Options
) -> tuple[Dataset, Dataset]:  # fmt: skip
    """Calibration and evaluation data; the former serves as the latter where there is none."""
    if isinstance(preprocess, str | Path):
        preprocess = load_preprocess(preprocess)

    def open_data(data: Any) -> Dataset:
        opened = open_dataset if isinstance(data, str | Path) else from_batches
        return opened(data, model.inputs, preprocess)

    first = open_data(calibration)
    second = first if evaluation is None else open_data(evaluation)
    return first, second if options.samples is None else second.take(options.samples)


def _write(
    folder: Path, model: Model, target: Descriptor, graphs: Graphs, program: StaticProgram,
    evidence: Evidence, progress: Progress,
) -> None:  # fmt: skip
    arrays = {name: np.concatenate(parts) for name, parts in evidence.golden.items()}
    np.savez_compressed(folder / "golden.npz", **arrays)  # type: ignore[arg-type]
    report = build_report(model.name, target.name, graphs, program, evidence, progress.seconds)
    write_report(report, folder / "report.json")
    write_metadata(folder, model.name, target.name, target.toolchain.run, program)


def _gate(report: dict[str, Any], evidence: Evidence, options: Options) -> None:
    """Raise where the emitted code is wrong, or not as accurate as asked for."""
    if evidence.mismatches:
        raise MismatchError(
            f"the emitted code differs from the reference in {evidence.mismatches} of {evidence.values} "
            f"values, first at {evidence.first_mismatch}; this is a bug of a kernel, please report it"
        )
    if options.max_drop is None:
        return
    lost = drop(report["accuracy"])
    if lost is None:
        raise InputError(
            f"--max-drop needs labels or a --metric, and code that runs here ({evidence.executor})"
        )
    if lost > options.max_drop:
        raise AccuracyError(
            f"the emitted code loses {lost:.2f} points, --max-drop allows {options.max_drop:g}"
        )


__all__ = ["Options", "Score", "compile", "fuse", "lower"]
