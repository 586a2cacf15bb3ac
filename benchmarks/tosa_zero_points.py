"""Weights and activations with zero points beside the TOSA reference model: differing codes of convolutions.

    python -m venv tosa && tosa/bin/pip install tosa-tools
    python benchmarks/tosa_zero_points.py --tosa tosa/bin

Convolutions that another tool would have quantized (QuantizeLinear, DequantizeLinear) with zero points of x,
of the weights and of y are compiled for a target with `weights = "asymmetric"`; what the emitted code gives
must be the sums of TOSA's CONV2D, brought to int8 by the rounding that tosa_rescale.py compares with RESCALE.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tosa_oracle import reference_model, shape_text

import hwptq
from hwptq.quant.fixed_point import quantize_multiplier, requantize

TARGET = """\
schema = 1
name = "asymmetric"
extends = "{base}"
summary = "weights with zero points"
[numerics]
rounding = "half-up"
weights = "asymmetric"
"""
_MLIR = """\
module {{ func.func @main(%x: tensor<{x}xi8>, %w: tensor<{w}xi8>) -> tensor<{y}xi32> {{
 %b = "tosa.const"() {{values = dense<[{bias}]> : tensor<{co}xi32>}} : () -> tensor<{co}xi32>
 %zx = "tosa.const"() {{values = dense<{zero}> : tensor<1xi8>}} : () -> tensor<1xi8>
 %zw = "tosa.const"() {{values = dense<{weight_zero}> : tensor<1xi8>}} : () -> tensor<1xi8>
 %0 = tosa.conv2d %x, %w, %b, %zx, %zw {{acc_type = i32, dilation = array<i64: 1, 1>,
  pad = array<i64: {pad}, {pad}, {pad}, {pad}>, stride = array<i64: 1, 1>}} : (tensor<{x}xi8>,
  tensor<{w}xi8>, tensor<{co}xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<{y}xi32>
 return %0 : tensor<{y}xi32> }} }}
"""


@dataclass(frozen=True)
class Layer:
    """A convolution [N,C,H,W] of stride 1 that keeps the size, with zero points of x, weights and y."""

    size: int
    ci: int
    co: int
    kernel: int
    zeros: tuple[int, int, int]


#: Shapes with odd channels; zero points of weights at the ends too, so that steps from them have 9 bits.
LAYERS = (
    Layer(16, 8, 16, 3, (-11, 37, 9)),
    Layer(20, 3, 24, 3, (-128, -127, -128)),
    Layer(16, 17, 33, 1, (127, 127, 5)),
    Layer(24, 5, 40, 5, (0, -3, 0)),
    Layer(32, 4, 16, 3, (4, 100, -20)),
)
Arrays = dict[str, np.ndarray]  # by their names in the file
_DEVIATION = 74.0  # of codes in which each of the 256 is as likely
_SCALES = {"sx": 0.05, "sw": 0.011}


def constants(layer: Layer, seed: int) -> Arrays:
    """What the file holds: codes of weights and bias, scales and zero points."""
    rng = np.random.default_rng(seed)
    fan = layer.ci * layer.kernel**2
    found = {name: np.float32(value) for name, value in _SCALES.items()}
    zx, zw, zy = (np.int8(zero) for zero in layer.zeros)
    weight = rng.integers(-128, 128, (layer.co, layer.ci, layer.kernel, layer.kernel)).astype(np.int8)
    bias = rng.integers(-3000, 3000, layer.co).astype(np.int32)
    means = [-0.5 - zero for zero in layer.zeros[:2]]
    each = np.prod([np.hypot(mean, _DEVIATION) for mean in means])  # of a product, root mean square
    reach = fan * abs(np.prod(means)) + 3 * fan**0.5 * each
    sy = np.float32(_SCALES["sx"] * _SCALES["sw"] * reach / 110)
    return {
        **found, "sb": np.float32(found["sx"] * found["sw"]), "sy": sy, "zx": zx, "zw": zw, "zb": np.int32(0),
        "zy": zy, "w": weight, "b": bias,
    }  # fmt: skip


def quantized_file(layer: Layer, arrays: Arrays) -> onnx.ModelProto:
    """The convolution between QuantizeLinear and DequantizeLinear."""

    def node(kind: str, inputs: str, output: str) -> onnx.NodeProto:
        return helper.make_node(kind, inputs.split(), [output])

    nodes = [
        node("QuantizeLinear", "x sx zx", "xq"),
        node("DequantizeLinear", "xq sx zx", "xd"),
        node("DequantizeLinear", "w sw zw", "wd"),
        node("DequantizeLinear", "b sb zb", "bd"),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["c"], "conv", pads=[layer.kernel // 2] * 4),
        node("QuantizeLinear", "c sy zy", "cq"),
        node("DequantizeLinear", "cq sy zy", "y"),
    ]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, layer.size, layer.size])
        for name, channels in (("x", layer.ci), ("y", layer.co))
    )
    graph = helper.make_graph(nodes, "layer", [given], [made], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def by_tosa(layer: Layer, arrays: Arrays, x: np.ndarray, tools: Path, folder: Path) -> np.ndarray:
    """The codes [1,H,W,C] of y for those of x, int8 [1,H,W,C]."""
    weight = arrays["w"].transpose(0, 2, 3, 1)
    out = (1, layer.size, layer.size, layer.co)
    text = _MLIR.format(
        x=shape_text(x.shape), w=shape_text(weight.shape), y=shape_text(out), co=layer.co,
        bias=", ".join(map(str, arrays["b"])), zero=layer.zeros[0], weight_zero=layer.zeros[1],
        pad=layer.kernel // 2,
    )  # fmt: skip
    acc = reference_model(text, x, weight, tools, folder).reshape(out)
    scale = float(arrays["sx"]) * float(arrays["sw"]) / float(arrays["sy"])
    multiplier, shift = quantize_multiplier(np.float64(scale))
    return requantize(acc, int(multiplier), int(shift), layer.zeros[2], -128, 127, rounding="half-up")


def emitted(layer: Layer, arrays: Arrays, x: np.ndarray, target: Path, folder: Path) -> np.ndarray:
    """The same by compiled code."""
    onnx.save(quantized_file(layer, arrays), str(folder / "layer.onnx"))
    real = ((x.astype(np.int64) - layer.zeros[0]) * arrays["sx"]).astype(np.float32).transpose(0, 3, 1, 2)
    batch = {"x": np.ascontiguousarray(real)}
    model = hwptq.compile(
        str(folder / "layer.onnx"), str(target), evaluation_data=[batch], output=folder / "out"
    )
    if model.report["coverage"]["nodes_float"]:
        sys.exit(f"{layer} stays in float")
    y = next(iter(model.run(batch).values())).transpose(0, 2, 3, 1)
    return np.rint(y / arrays["sy"]) + layer.zeros[2]


def main() -> None:
    """One line for each layer; the process fails where a code differs."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("--tosa", type=Path, required=True, help="the bin folder of the environment")
    command.add_argument("--base", default="x86-64-avx2", help="the target that has the kernels")
    args, wrong, size = command.parse_args(), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "asymmetric.toml"
        target.write_text(TARGET.format(base=args.base), encoding="utf-8")
        for seed, layer in enumerate(LAYERS):
            arrays = constants(layer, seed)
            shape = (1, layer.size, layer.size, layer.ci)
            x = np.random.default_rng(100 + seed).integers(-128, 128, shape).astype(np.int8)
            expected = by_tosa(layer, arrays, x, args.tosa.resolve(), folder)
            found = emitted(layer, arrays, x, target, folder)
            differ, inside = np.count_nonzero(found != expected), np.count_nonzero(np.abs(expected) < 127)
            print(f"{layer}: {differ} of {found.size} differ, {inside} inside of the limits", flush=True)
            wrong, size = wrong + int(differ), size + found.size
    print(f"{wrong} of {size} differ")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
