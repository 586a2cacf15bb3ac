"""A second opinion on the integers: convolutions of int8 by int4 in Arm's TOSA reference model.

    python -m venv .tosa && .tosa/bin/pip install tosa-tools
    python benchmarks/tosa_oracle.py --tosa .tosa/bin [--target hexagon-v66-npu]

tosa-tools wants an older numpy, hence an environment of its own. The reference model computes the int32
accumulators; requantized as quant/fixed_point.py says, they must be the bytes of the emitted kernels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

import numpy as np

from hwptq.operators.conv2d import Conv2d

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernels"))

from kernel_cases import Case, int8, scales  # type: ignore[import-not-found]
from program_batch import run_batch  # type: ignore[import-not-found]

from hwptq.quant.fixed_point import requantize
from hwptq.targets import load_target

#: (rows and columns, input channels, output channels, kernel, stride, dilation) of convolutions with int4
#: weights: the stages of ResNet-20 and shapes with odd channels.
LAYERS = (
    (32, 3, 16, 3, 1, 1),
    (32, 16, 16, 3, 1, 1),
    (32, 16, 32, 3, 2, 1),
    (8, 64, 64, 3, 1, 1),
    (14, 24, 40, 1, 1, 1),
    (9, 7, 33, 3, 1, 2),
    (11, 5, 10, 7, 2, 1),
)
_MLIR = """\
module {{ func.func @main(%x: tensor<{x}xi8>, %w: tensor<{w}xi4>) -> tensor<{y}xi32> {{
 %b = "tosa.const"() {{values = dense<[{bias}]> : tensor<{co}xi32>}} : () -> tensor<{co}xi32>
 %zx = "tosa.const"() {{values = dense<0> : tensor<1xi8>}} : () -> tensor<1xi8>
 %zw = "tosa.const"() {{values = dense<0> : tensor<1xi4>}} : () -> tensor<1xi4>
 %0 = tosa.conv2d %x, %w, %b, %zx, %zw {{acc_type = i32, dilation = array<i64: {dilation}>,
  pad = array<i64: {pad}>, stride = array<i64: {stride}>}} : (tensor<{x}xi8>, tensor<{w}xi4>,
  tensor<{co}xi32>, tensor<1xi8>, tensor<1xi4>) -> tensor<{y}xi32>
 return %0 : tensor<{y}xi32> }} }}
"""


def layer_case(seed: int, size: int, ci: int, co: int, kernel: int, stride: int, dilation: int) -> Case:
    """A Conv2d with int4 weights (held 16 times as large) and a zero point of 0, as the border is 0."""
    random = Random(seed)
    rng = np.random.default_rng(seed)
    # TOSA divides by the stride without a rest: the padding below is cut to fit
    reach = dilation * (kernel - 1)
    pad, over = reach // 2, (size + reach // 2 * 2 - reach - 1) % stride
    padding = (pad, pad, pad - over, pad - over)
    weight = (rng.integers(-7, 8, (co, kernel, kernel, ci)) * 16).astype(np.int8)
    bias, multiplier, shift = scales(random, co, ci * kernel * kernel * 8)
    op = Conv2d((stride, stride), padding, (dilation, dilation), 1, 0, 3, -128, 127, weight_bits=4)
    return Case(op, (int8(random, 1, size, size, ci),), (weight, bias // 16 * 16, multiplier, shift))


def accumulators(case: Case, tools: Path, folder: Path) -> np.ndarray:
    """int32 sums of x and the int4 weights, as the reference model computes them."""
    (x,), (weight, bias, *_), op = case.activations, case.constants, case.op
    out = case.expected().shape
    text = _MLIR.format(
        x=shape_text(x.shape), w=shape_text(weight.shape), y=shape_text(out), co=out[3],
        bias=", ".join(str(b) for b in bias // 16), dilation="{}, {}".format(*op.dilation),
        pad="{0}, {2}, {1}, {3}".format(*op.padding), stride="{}, {}".format(*op.strides),
    )  # fmt: skip
    return reference_model(text, x, weight // 16, tools, folder).reshape(out)


def reference_model(text: str, x: np.ndarray, weight: np.ndarray, tools: Path, folder: Path) -> np.ndarray:
    """What the reference model computes of `text`, a function of an activation and a weight."""
    (folder / "layer.mlir").write_text(text, encoding="utf-8")
    np.save(folder / "x.npy", x)
    np.save(folder / "w.npy", weight)
    schema = f"{tools}/tosa.fbs"
    _call(
        f"{tools}/tosa-opt", "--tosa-serialize", "--tosa-flatbuffer-filename=layer.tosa",
        f"--tosa-flatbuffer-schema={schema}", "layer.mlir", folder=folder,
    )  # fmt: skip
    _call(
        f"{tools}/tosa_reference_model", "--tosa_file=layer.tosa", "--flatbuffer_dir=.", "--output_dir=.",
        f"--operator_fbs={schema}", "--ifm_name=TosaInput_0,TosaInput_1", "--ifm_file=x.npy,w.npy",
        "--ofm_name=TosaOutput_0", "--ofm_file=y.npy", "--tosa_level=NONE", folder=folder,
    )  # fmt: skip
    return np.asarray(np.load(folder / "y.npy"))


def shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _call(*command: str, folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}")


def main() -> None:
    """Compare every layer, byte by byte."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tosa", type=Path, required=True, help="the bin folder of the environment")
    parser.add_argument("--target", default="hexagon-v66-npu")
    options = parser.parse_args()
    cases = [layer_case(seed, *layer) for seed, layer in enumerate(LAYERS)]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emitted = run_batch(cases, load_target(options.target), folder)
        for layer, case, found in zip(LAYERS, cases, emitted, strict=True):
            _, _, multiplier, shift = case.constants
            sums = accumulators(case, options.tosa.resolve(), folder).astype(np.int64) * 16
            op = case.op
            expected = requantize(sums, multiplier, shift, op.out_zero_point, op.lo, op.hi)
            differ = int(np.count_nonzero(expected != found))
            wrong += differ
            print(f"{layer}: {differ} of {found.size} bytes differ")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
