"""Our own model.qdq.onnx: does ONNX Runtime load it, and is it compiled to the same integers again?

python benchmarks/round_trip.py [demo resnet20 …] [--target x86-64-avx2] [--samples 4]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tvm
from common import CASES, parser, paths

from hwptq import Options
from hwptq.data.dataset import Dataset, open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import constant
from hwptq.ir.operator import WeightedOperator
from hwptq.pipeline.stages import integers, quantize
from hwptq.pipeline.step import Job
from hwptq.qdq_export import export_qdq
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target

MINILM = "sts-minilm-l6"
NAMES = (
    "demo",
    "resnet20",
    "resnet8",
    "tiny-kws",
    "imagenet-squeezenet11",
    "imagenet-mobilenetv1-075",
    MINILM,
)

command = parser(__doc__)
command.add_argument("cases", nargs="*", default=NAMES, help=", ".join(NAMES))
command.add_argument("--target", default="x86-64-avx2")
command.add_argument("--samples", type=int, default=4)
command.add_argument("--recipe", default="fast")


@dataclass(frozen=True)
class RoundTrip:
    """What became of a model that left and came back."""

    weights: int  # integers of layers
    different: int  # of them that are others now
    values: int  # of outputs
    changed: int

    def __str__(self) -> str:
        return f"{self.different} of {self.weights} integers, {self.changed} of {self.values} outputs differ"


def round_trip(
    module: tvm.IRModule, outputs: tuple[str, ...], data: Dataset, job: Job, folder: Path
) -> RoundTrip:
    """Quantize a module, write the file, let ONNX Runtime load it, and compile it again."""
    quantized = quantize(module, job)
    first = integers(quantized, job)
    path = folder / "model.qdq.onnx"
    onnx.save(export_qdq(quantized.qdq, outputs, "again"), str(path))
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    again = import_onnx(path)
    second = integers(quantize(again.module, job), job)
    pairs = list(zip(_integers(first), _integers(second), strict=True))
    counts = [(a.size, a.size if a.shape != b.shape else int(np.sum(a != b))) for a, b in pairs]
    values = changed = 0
    for sample in data:
        found = [Interpreter(m).run(sample.inputs) for m in (first, second)]
        for one, other in zip(*found, strict=True):
            values, changed = values + one.size, changed + int(np.sum(one != other))
    return RoundTrip(sum(n for n, _ in counts), sum(d for _, d in counts), values, changed)


def _integers(module: tvm.IRModule) -> Iterator[np.ndarray]:
    """The constants of the layers of an integer module, in its order."""
    for _, op, args in integer_nodes(module):
        if isinstance(op, WeightedOperator):
            yield from (array for a in args if (array := constant(a)) is not None)


def main() -> None:
    """A row for each case; fails where anything differs."""
    args, good = command.parse_args(), True
    device = load_target(args.target)
    for name in args.cases:
        if name in CASES:
            files, axes = paths(name, args.data), {}
        else:
            folder = args.data / name
            files, axes = (
                {"model": folder / "model.onnx", "calibration_data": folder / "calib.npz"},
                {"S": 64},
            )
        model = import_onnx(files["model"], axes)
        preprocess = load_preprocess(files["preprocess"]) if files.get("preprocess") else None
        data = open_dataset(files["calibration_data"], model.inputs, preprocess)
        job = Job(device, data.take(32), Options(recipe=args.recipe))
        with tempfile.TemporaryDirectory() as folder:
            found = round_trip(model.module, model.outputs, data.take(args.samples), job, Path(folder))
        print(f"| {name} | {found} |", flush=True)
        good &= not found.different and not found.changed
    sys.exit(not good)


if __name__ == "__main__":
    main()
