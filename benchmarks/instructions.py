"""AArch64 instructions per inference, counted under qemu-aarch64: hwptq beside ONNX Runtime int8.

    pip download onnxruntime==1.32.0 --no-deps --only-binary=:all: --python-version 3.11 \\
        --platform manylinux_2_28_aarch64 --dest DIR
    python benchmarks/instructions.py --data DATA --wheel DIR/onnxruntime-*.whl \\
        [--models resnet20,mobilenetv1-075] [--targets arm-cortex-a,arm-cortex-a-i8mm] [--functions 20]

One thread, batch 1. Counts are differences between runs with N and N + 1 inferences, so start-up cancels.
ONNX Runtime runs on an emulated Cortex-A76 (dot products) and on qemu's `max` (matrix products too), its
model quantized per channel with unsigned and with signed activations. A ratio below 1 is fewer instructions
than the better of those two on the CPU of the same kind. --functions lists the functions of hwptq that take
most.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from emulated import OnnxRuntime, per_inference
from models import Case, load_case
from onnx_runtime import quantize
from onnxruntime.quantization import QuantType
from programs import build

from hwptq.backends.static_c.instruction_counter import InstructionCounter
from hwptq.targets import load_target

#: target -> the CPU on which ONNX Runtime uses the same instruction, and the ratio asked for
_RIVALS = {"arm-cortex-a": ("cortex-a76", 0.9), "arm-cortex-a-i8mm": ("max", 0.6)}


def measure_onnx_runtime(case: Case, cpus: list[str], wheel: Path, folder: Path) -> dict[str, int]:
    """The fewest instructions of ONNX Runtime int8 by CPU; all counts are printed."""
    runtime, best = OnnxRuntime(wheel, folder), {}
    for activation in (QuantType.QUInt8, QuantType.QInt8):
        model = quantize(case, folder, activation)
        output = onnx.load(str(model)).graph.output[0].name
        for cpu in cpus:
            total = runtime.per_inference(cpu, model, case.samples[0], output).total()
            print(f"{case.name:16} onnxruntime int8, {activation} activations, {cpu:12} {total:12,}")
            best[cpu] = min(total, best.get(cpu, total))
    return best


def measure(case: Case, name: str, folder: Path) -> Counter[str]:
    """Instructions of the program for target `name`, by function."""
    target = load_target(name)
    program = build(case, target, folder)
    data = b"".join(np.ascontiguousarray(case.samples[0][t.name], t.dtype) for t in program.inputs)
    return per_inference(InstructionCounter(target.toolchain.run, folder), program.program.resolve(), data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--wheel", type=Path, help="aarch64 wheel of ONNX Runtime; without it: hwptq alone")
    parser.add_argument("--models", default="resnet20,mobilenetv1-075")
    parser.add_argument("--targets", default=",".join(_RIVALS))
    parser.add_argument("--functions", type=int, default=0, metavar="N")
    options = parser.parse_args()
    names = options.targets.split(",")
    cpus = [_RIVALS[name][0] for name in names if name in _RIVALS]
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory(prefix="hwptq-") as scratch:
            folder = Path(scratch)
            case = load_case(model, options.data, folder)
            rivals = measure_onnx_runtime(case, cpus, options.wheel, folder) if options.wheel else {}
            for name in names:
                show(case, name, measure(case, name, folder), rivals, options.functions)


def show(case: Case, name: str, counts: Counter[str], rivals: dict[str, int], functions: int) -> None:
    """One line for the target, then its functions."""
    total = counts.total()
    cpu, bound = _RIVALS.get(name, ("", 0))
    ratio = f"{total / rivals[cpu]:6.2f} x (bound {bound})" if cpu in rivals else ""
    print(f"{case.name:16} hwptq {name:42} {total:12,} {ratio}", flush=True)
    for function, count in counts.most_common(functions):
        print(f"{'':20} {count:12,} {count / total:6.1%}  {function}")


if __name__ == "__main__":
    main()
