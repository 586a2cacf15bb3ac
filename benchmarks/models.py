"""The models that are measured: files of the data folder, and those that need none.

These are the ResNet-50 of the onnx package, and `silu`, which is measured where it is asked for by name, as
the transformers of transformer_models.py are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from silu_model import INPUT, write_silu_model
from transformer_models import TRANSFORMERS

from hwptq.data.dataset import open_dataset
from hwptq.data.preprocess import load_preprocess
from hwptq.frontends.onnx.importer import import_onnx

#: name -> folder of the model, calibration data (both relative to the data folder)
_STORED = {
    "mobilenetv1-075": ("imagenet-mobilenetv1-075", "imagenet-mobilenetv1-075/calibration"),
    "squeezenet11": ("imagenet-squeezenet11", "imagenet-mobilenetv1-075/calibration"),
    "resnet20": ("cifar10-resnet20", "cifar10-resnet20/calib.npz"),
    "resnet8": ("tiny-resnet8", "cifar10-resnet20/calib.npz"),
    "kws": ("tiny-kws", "tiny-kws/calib.npz"),
}
RESNET50 = "resnet50"
SILU = "silu"
NAMES = (*_STORED, RESNET50)
_SEQUENCES = 64  # that transformers are calibrated on


@dataclass(frozen=True)
class Case:
    """A model with calibration samples, one dict of arrays each, and how it is quantized."""

    name: str
    model: Path
    samples: tuple[dict[str, np.ndarray], ...]
    recipe: str = "fast"
    transformer: bool = False  # as peers' quantizers ask


def load_case(name: str, data: Path, folder: Path, count: int = 16) -> Case:
    """The model `name` with `count` samples; files that have to be made go to `folder`."""
    if name == RESNET50:
        return _resnet50(folder)
    if name == SILU:
        return _silu(folder)
    if name in TRANSFORMERS:
        given, path = TRANSFORMERS[name], folder / f"{name}.onnx"
        given.write(data, path)
        return Case(name, path, given.samples(data, _SEQUENCES), "default", transformer=True)
    home, calibration = _STORED[name]
    model = data / home / "model.onnx"
    preprocess = load_preprocess(data / home / "preprocess.toml")
    dataset = open_dataset(data / calibration, import_onnx(model).inputs, preprocess)
    return Case(name, model, tuple(sample.inputs for sample in dataset.take(count)))


def _silu(folder: Path) -> Case:
    rng, path = np.random.default_rng(1), folder / "silu.onnx"
    write_silu_model(path)
    return Case(SILU, path, tuple({"input": rng.standard_normal(INPUT, np.float32)} for _ in range(2)))


def _resnet50(folder: Path) -> Case:
    """light_resnet50 of the onnx package, its constant weights replaced by random ones of a sane size."""
    source = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    graph = onnx.load(str(source))
    rng = np.random.default_rng(0)
    _randomize(graph.graph, rng)
    _rename(graph.graph)
    read = {name for node in graph.graph.node for name in node.input}
    for unused in [t for t in graph.graph.initializer if t.name not in read]:
        graph.graph.initializer.remove(unused)
    graph.ir_version = 8  # from 4 on, weights need not be inputs too
    path = folder / "resnet50.onnx"
    onnx.save(onnx.version_converter.convert_version(graph, 13), str(path))
    samples = tuple({"input": rng.standard_normal((1, 3, 224, 224), np.float32)} for _ in range(2))
    return Case(RESNET50, path, samples)


def _randomize(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    """Every tensor filled with a constant becomes an initializer: weights as He et al. draw them."""
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "ConstantOfShape"]:
        shape = tuple(int(d) for d in shapes[node.input[0]])
        if len(shape) > 1:
            values = _levels(rng, shape) * np.sqrt(2 / np.prod(shape[1:]))
        else:
            values = _per_channel(node.output[0], shape, rng)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    for tensor in [
        t for t in graph.initializer if t.name in shapes and t.data_type == onnx.TensorProto.FLOAT
    ]:
        values = _per_channel(tensor.name, tuple(tensor.dims), rng)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))


def _levels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Of a normal distribution, rounded to halves: few values, so that programs with them pack well."""
    return np.round(2 * rng.standard_normal(shape)) / 2


def _per_channel(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Scale and variance near 1, mean and shift near 0; a residual branch ends in a small scale."""
    noise = rng.standard_normal(shape) * 0.1
    if name.endswith("_riv_0"):
        return 1 + np.abs(noise)
    if name.endswith("_bn_s_0"):
        return (0.3 if "branch2c" in name else 1.0) + 0.3 * noise
    return noise


def _rename(graph: onnx.GraphProto) -> None:
    """One input named "input", one output named "output", the graph without constants among its inputs."""
    given = {t.name for t in graph.initializer}
    (data,) = [i for i in graph.input if i.name not in given and "data" in i.name]
    old, result = data.name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["input" if n == old else n for n in node.input]
        node.output[:] = ["output" if n == result else n for n in node.output]
    data.name, graph.output[0].name = "input", "output"
    del graph.input[:]
    graph.input.append(data)
