"""Our own model.qdq.onnx: does ONNX Runtime load it, and is it compiled to the same integers again?

python benchmarks/round_trip.py [demo resnet20 …] [--target x86-64-avx2] [--samples 4] [--length 32]

--length: tokens of a text that language models read.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tvm
from common import CASES, parser, paths

from hwptq import Options
from hwptq.data.dataset import Dataset, from_batches, open_dataset
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

Batches = list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Given:
    """A model that is no case of common.py: its file, the sizes of its axes by the length, its samples."""

    model: str
    axes: Callable[[int], dict[str, int]]
    samples: Callable[[Path, int], Batches]


def _sentences(folder: Path, length: int) -> Batches:
    arrays = dict(np.load(folder / "calib.npz"))
    return [{n: a[i][None, ..., :length] for n, a in arrays.items()} for i in range(_CALIBRATION)]


def _images(folder: Path, length: int) -> Batches:
    raw = np.load(folder / "data.npz")["calib_image"][:_CALIBRATION].astype(np.float32)
    return [{"image": image[None]} for image in ((raw / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)]


def _words(folder: Path, length: int) -> Batches:
    ids = np.load(folder / "data.npz")["calib_ids"][:_CALIBRATION, None]
    return [{"input_ids": i, "attention_mask": (i > 0).astype(np.int64)} for i in ids]


def _texts(folder: Path, length: int) -> Batches:
    tokens = np.load(folder / "tokens.npz")["calibration"][:_CALIBRATION, None, :length].astype(np.int64)
    return [{"input_ids": ids} for ids in tokens]


def _steps(folder: Path, length: int) -> Batches:
    """The first steps of a text, with random caches of the size that the model has."""
    numbers, tokens = np.random.default_rng(0), np.load(folder / "tokens.npz")["calibration"][0]
    shapes = {i: s for i, (s, _) in import_onnx(folder / "decode.onnx").inputs.items() if "past" in i}
    return [
        {"input_ids": tokens[i].astype(np.int64).reshape(1, 1), "position": np.array([i])}
        | {n: numbers.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
        for i in range(_CALIBRATION)
    ]


def _none(length: int) -> dict[str, int]:
    return {}


_CALIBRATION = 32
MORE = {
    "sts-minilm-l6": Given("sts-minilm-l6/model.onnx", lambda length: {"S": length}, _sentences),
    "emoji-clip-image": Given("emoji-clip/image.onnx", _none, _images),
    "emoji-clip-text": Given("emoji-clip/text.onnx", _none, _words),
    "docs-lm-prefill": Given("docs-lm/prefill.onnx", lambda length: {"length": length}, _texts),
    "docs-lm-decode": Given("docs-lm/decode.onnx", _none, _steps),
}
NAMES = (*CASES, *MORE)

command = parser(__doc__)
command.add_argument("cases", nargs="*", default=NAMES, help=", ".join(NAMES))
command.add_argument("--target", default="x86-64-avx2")
command.add_argument("--samples", type=int, default=4)
command.add_argument("--length", type=int, default=32)
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
            files = paths(name, args.data)
            model = import_onnx(files["model"])
            preprocess = load_preprocess(files["preprocess"]) if files.get("preprocess") else None
            data = open_dataset(files["calibration_data"], model.inputs, preprocess)
        else:
            path = args.data / MORE[name].model
            model = import_onnx(path, MORE[name].axes(args.length))
            data = from_batches(MORE[name].samples(path.parent, args.length), model.inputs)
        job = Job(device, data.take(_CALIBRATION), Options(recipe=args.recipe))
        with tempfile.TemporaryDirectory() as folder:
            found = round_trip(model.module, model.outputs, data.take(args.samples), job, Path(folder))
        print(f"| {name} | {found} |", flush=True)
        good &= not found.different and not found.changed
    sys.exit(not good)


if __name__ == "__main__":
    main()
