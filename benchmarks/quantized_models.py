"""Models of other tools' quantization: what of them is in integers, and how near to ONNX Runtime's kernels.

python benchmarks/quantized_models.py resnet20 [--form static-qdq …] [--samples 4]
python benchmarks/quantized_models.py resnet20 --tool esp-ppq --python VENV/bin/python    made by another tool

A form is how ONNX Runtime quantizes; other tools run in a Python of their own (peer_quantizers.py). A
difference is counted in codes: in steps of the last DequantizeLinear, or in 127ths of the largest output if
none ends the model.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from common import CASES, parser, paths
from onnx import numpy_helper
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType
from onnxruntime.quantization.shape_inference import quant_pre_process

from hwptq import Options
from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.model import Model
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.pipeline.stages import integers, quantize
from hwptq.pipeline.step import Job
from hwptq.report.coverage import coverage
from hwptq.targets import load_target

MINILM = "sts-minilm-l6"
_TOOLS = ("matmul-nbits", "esp-ppq", "nncf", "aimet", "quark", "modelopt")
_CALIBRATION = 16

Samples = Sequence[Mapping[str, np.ndarray]]


class _Reader(quantization.CalibrationDataReader):
    def __init__(self, samples: Samples):
        self.samples = iter(samples)

    def get_next(self) -> Any:
        return next(self.samples, None)


def _static(**how: Any) -> Callable[[Path, Path, Samples], None]:
    def make(model: Path, path: Path, samples: Samples) -> None:
        quantization.quantize_static(str(model), str(path), _Reader(samples), **how)

    return make


def _dynamic(model: Path, path: Path, samples: Samples) -> None:
    quantization.quantize_dynamic(str(model), str(path), per_channel=True, weight_type=QuantType.QInt8)


_S8, _U8 = QuantType.QInt8, QuantType.QUInt8
FORMS = {
    "static-qdq": _static(
        quant_format=QuantFormat.QDQ, per_channel=True, activation_type=_U8, weight_type=_S8
    ),
    "static-qdq-u8u8": _static(quant_format=QuantFormat.QDQ, activation_type=_U8, weight_type=_U8),
    "static-qoperator": _static(
        quant_format=QuantFormat.QOperator, per_channel=True, activation_type=_U8, weight_type=_S8
    ),
    "dynamic": _dynamic,
}

command = parser(__doc__)
command.add_argument("case", choices=[*CASES, MINILM])
command.add_argument("--form", nargs="*", choices=list(FORMS), default=[])
command.add_argument("--tool", choices=_TOOLS)
command.add_argument("--python", type=Path, help="the interpreter that has the tool")
command.add_argument("--target", default="x86-64-avx2")
command.add_argument("--samples", type=int, default=4)
command.add_argument("--activations", default="static", choices=["static", "dynamic"])


def main() -> None:
    """A row for each file."""
    logging.disable(logging.WARNING)
    args = command.parse_args()
    files, axes = _files(args.case, args.data)
    model = import_onnx(files["model"], axes)
    preprocess = load_preprocess(files["preprocess"]) if files.get("preprocess") else None
    data = open_dataset(files["calibration_data"], model.inputs, preprocess)
    samples = [sample.inputs for sample in data.take(_CALIBRATION)]
    options = Options(activations=args.activations)
    job = Job(load_target(args.target), data.take(_CALIBRATION), options)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(files["model"]), str(prepared), skip_symbolic_shape=True)
        for form in args.form:
            path = Path(folder, f"{form}.onnx")
            FORMS[form](prepared, path, samples)
            print(
                _row(args.case, f"ONNX Runtime, {form}", path, axes, job, samples[: args.samples]), flush=True
            )
        if args.tool:
            path = Path(folder, f"{args.tool}.onnx")
            _by_tool(args.tool, args.python, files["model"], path, samples, Path(folder, "samples.npz"))
            print(_row(args.case, args.tool, path, axes, job, samples[: args.samples]), flush=True)


def _files(name: str, data: Path) -> tuple[dict[str, Any], dict[str, int]]:
    if name in CASES:
        return dict(paths(name, data)), {}
    return {"model": data / name / "model.onnx", "calibration_data": data / name / "calib.npz"}, {"S": 64}


def _by_tool(tool: str, python: Path, model: Path, path: Path, samples: Samples, file: Path) -> None:
    """Have another tool write `path`, from a copy: some write to the model that they are given. Exits with
    what it says where it fails."""
    given = file.parent / "given.onnx"
    shutil.copyfile(model, given)
    np.savez(file, **{name: np.stack([s[name] for s in samples]) for name in samples[0]})
    script = Path(__file__).with_name("peer_quantizers.py")
    done = subprocess.run(
        [str(python), str(script), tool, str(given), str(file), str(path)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(file.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not path.exists():
        sys.exit(f"{tool}: {done.stderr.strip()[-600:]}")


def _row(
    case: str, name: str, path: Path, axes: Mapping[str, int], job: Job, samples: Samples
) -> str:  # fmt: skip
    """| case | made by | MACs in integers | values that differ | the largest difference | warnings |"""
    model = import_onnx(path, axes)
    model.check(samples[0])
    quantized = quantize(model.module, job)
    integer = integers(quantized, job)
    cover = coverage(quantized.float32, integer)
    step = _last_step(onnx.load(str(path)))
    found = [_outputs(integer, s) for s in samples]
    wanted = _by_runtime(path, model, samples)
    if step is None:
        step = max(float(np.abs(w).max()) for w in wanted) / 127
    codes = np.concatenate([np.abs(a - b).ravel() for a, b in zip(found, wanted, strict=True)]) / step
    share = 100 * cover["macs_quantized"] / cover["macs_total"]
    said = "; ".join(w.kind for w in (*model.warnings, *quantized.warnings)) or "none"
    differ = 100 * float(np.mean(codes > 0.5))
    return f"| {case} | {name} | {share:.1f} % | {differ:.1f} % | {codes.max():.1f} | {said} |"


def _outputs(module: Any, sample: Mapping[str, np.ndarray]) -> np.ndarray:
    names = [str(p.name) for p in module["main"].params]
    return np.asarray(Interpreter(module).run(dict(zip(names, sample.values(), strict=True)))[0])


def _by_runtime(path: Path, model: Model, samples: Samples) -> list[np.ndarray]:
    """The first output of each sample, by integer kernels."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, dict(s))[0]) for s in samples]


def _last_step(proto: onnx.ModelProto) -> float | None:
    """The scale of the DequantizeLinear that gives the first output."""
    makers = {o: node for node in proto.graph.node for o in node.output}
    constants = {t.name: t for t in proto.graph.initializer}
    node = makers.get(proto.graph.output[0].name)
    while node is not None and node.op_type in ("Reshape", "Flatten", "Squeeze", "Identity"):
        node = makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return None
    scale = numpy_helper.to_array(constants[node.input[1]])
    return float(scale.reshape(-1)[0]) if scale.size == 1 else None


if __name__ == "__main__":
    main()
