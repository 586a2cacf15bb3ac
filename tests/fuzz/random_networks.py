"""Random small networks: a list of nodes that grows by steps, each of which knows the shapes it can take."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx_models import model, node

LAYERS = ("Conv", "Gemm", "MatMul")
_MOST_ELEMENTS = 4000
_SAMPLES = 6


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Network:
    """What has been made so far; `tensors` may be read again, `last` is what the next step reads."""

    chance: random.Random
    numbers: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    @property
    def last(self) -> Tensor:
        return self.tensors[-1]

    def constant(self, value: Any) -> str:
        """The name of a new constant."""
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def weights(self, *shape: int) -> str:
        """A constant of the size that keeps sums of products about as large as what is summed."""
        fan = max(1, prod(shape[1:]))
        return self.constant((self.numbers.standard_normal(shape) / fan**0.5).astype(np.float32))

    def emit(self, op: str, inputs: str, shape: tuple[int, ...], **attributes: Any) -> None:
        """A node whose output is the last tensor from now on."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(node(op, inputs, name, f"{op.lower()}{len(self.nodes)}", **attributes))
        self.tensors.append(Tensor(name, shape))


Step = Callable[[Network], None]


def _conv(net: Network) -> None:
    x, chance = net.last, net.chance
    channels, *image = x.shape[1:]
    groups, kernel = chance.choice([1, 1, channels]), chance.choice([1, 2, 3, 3, 5])
    stride, dilation = chance.choice([1, 1, 2, 3]), chance.choice([1, 1, 2])
    pads = [chance.randrange(kernel) for _ in range(2 * len(image))]
    sums = zip(image, pads, pads[len(image) :], strict=False)
    sizes = [(n + a + b - dilation * (kernel - 1) - 1) // stride + 1 for n, a, b in sums]
    if min(sizes) < 1:
        return
    outputs = groups if groups > 1 else chance.choice([1, 3, 8, 16, 17, 33])
    weights = net.weights(outputs, channels // groups, *[kernel] * len(image))
    bias = net.weights(outputs) if chance.random() < 0.7 else ""
    net.emit(
        "Conv", f"{x.name} {weights} {bias}", (1, outputs, *sizes), group=groups, pads=pads,
        strides=[stride] * len(image), dilations=[dilation] * len(image),
    )  # fmt: skip


def _dense(net: Network) -> None:
    x, outputs = net.last, net.chance.choice([1, 5, 8, 16, 31, 40])
    if len(x.shape) == 2 and net.chance.random() < 0.5:
        inputs = f"{x.name} {net.weights(outputs, x.shape[1])} {net.weights(outputs)}"
        return net.emit("Gemm", inputs, (1, outputs), transB=1)
    weights = net.weights(outputs, x.shape[-1])
    net.constants[weights] = np.ascontiguousarray(net.constants[weights].T)
    net.emit("MatMul", f"{x.name} {weights}", (*x.shape[:-1], outputs))


def _function(net: Network) -> None:
    functions = [
        "Relu",
        "Relu",
        "Sigmoid",
        "Tanh",
        "HardSwish",
        "LeakyRelu",
        "Elu",
        "Abs",
        "Neg",
        "HardSigmoid",
    ]
    net.emit(net.chance.choice(functions), net.last.name, net.last.shape)


def _clip(net: Network) -> None:
    low, high = (
        net.constant(np.float32(v)) for v in net.chance.choice([(0, 6), (-1, 1), (0.1, 0.9), (-3, 2)])
    )
    net.emit("Clip", f"{net.last.name} {low} {high}", net.last.shape)


def _together(net: Network) -> None:
    x, others = net.last, [t for t in net.tensors[:-1] if t.shape == net.last.shape]
    op = net.chance.choice(["Add", "Add", "Mul", "Sub", "Max", "Min"])
    if others and net.chance.random() < 0.7:
        return net.emit(op, f"{x.name} {net.chance.choice(others).name}", x.shape)
    shape = net.chance.choice([(1, x.shape[1], *[1] * (len(x.shape) - 2)), (), x.shape])
    constant = net.constant(net.numbers.standard_normal(shape).astype(np.float32))
    net.emit(op, f"{x.name} {constant}", x.shape)


def _concat(net: Network) -> None:
    x = net.last
    fitting = [t for t in net.tensors[:-1] if (t.shape[:1], t.shape[2:]) == (x.shape[:1], x.shape[2:])]
    if fitting:
        y = net.chance.choice(fitting)
        shape = (1, x.shape[1] + y.shape[1], *x.shape[2:])
        net.emit("Concat", f"{x.name} {y.name}", shape, axis=1)


def _slice(net: Network) -> None:
    x, axis = net.last, net.chance.randrange(1, len(net.last.shape))
    first = net.chance.randrange(x.shape[axis])
    end = net.chance.randrange(first, x.shape[axis]) + 1
    inputs = " ".join(net.constant(np.array([n])) for n in (first, end, axis))
    shape = (*x.shape[:axis], end - first, *x.shape[axis + 1 :])
    net.emit("Slice", f"{x.name} {inputs}", shape)


def _transpose(net: Network) -> None:
    axes = net.chance.sample(range(1, len(net.last.shape)), len(net.last.shape) - 1)
    shape = tuple(net.last.shape[a] for a in (0, *axes))
    net.emit("Transpose", net.last.name, shape, perm=[0, *axes])


def _flatten(net: Network) -> None:
    net.emit("Flatten", net.last.name, (1, prod(net.last.shape)), axis=1)


def _pool(net: Network) -> None:
    channels, *image = net.last.shape[1:]
    op, kernel = net.chance.choice(["MaxPool", "AveragePool", "GlobalAveragePool"]), net.chance.choice([2, 3])
    if op == "GlobalAveragePool":
        return net.emit(op, net.last.name, (1, channels, *[1] * len(image)))
    stride, pad = net.chance.choice([1, 2, 3]), net.chance.choice([0, 1])
    sizes = [(n + 2 * pad - kernel) // stride + 1 for n in image]
    if min(sizes) > 0:
        shape = (1, channels, *sizes)
        places = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        net.emit(op, net.last.name, shape, **places)


def _softmax(net: Network) -> None:
    net.emit("Softmax", net.last.name, net.last.shape, axis=-1)


def _norm(net: Network) -> None:
    size = net.last.shape[-1]
    if size > 2:
        inputs = f"{net.last.name} {net.constant(np.ones(size, np.float32))} {net.weights(size)}"
        net.emit("LayerNormalization", inputs, net.last.shape, axis=-1)


def _resize(net: Network) -> None:
    scales = net.constant(np.float32([1, 1, 2, 2]))
    modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    channels, high, wide = net.last.shape[1:]
    net.emit("Resize", f"{net.last.name} - {scales}", (1, channels, 2 * high, 2 * wide), **modes)


_ALWAYS: tuple[Step, ...] = (
    _dense, _dense, _function, _function, _clip, _together, _together, _concat, _slice, _transpose, _norm,
    _softmax,
)  # fmt: skip
_IMAGES: tuple[Step, ...] = (_conv, _conv, _conv, _conv, _conv, _pool, _resize, _flatten)


def random_network(chance: random.Random) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A network with at least one layer that has weights, and samples of its input."""
    net = Network(chance, np.random.default_rng(chance.randrange(2**32)))
    rank = chance.choice([2, 3, 4, 4, 4, 4])
    shape = (1, chance.choice([1, 3, 4, 8, 17, 32]), *[chance.randrange(1, 14) for _ in range(rank - 2)])
    net.tensors.append(Tensor("x", shape))
    for _ in range(chance.randrange(2, 10)):
        steps = _ALWAYS + (_IMAGES if len(net.last.shape) == 4 else ())
        chance.choice(steps if prod(net.last.shape) < _MOST_ELEMENTS else (_slice, _function))(net)
    if not any(n.op_type in LAYERS for n in net.nodes):
        _dense(net)
    spread, middle = chance.choice([0.1, 1, 1, 5]), chance.choice([0, 0, 1])
    data = net.numbers.standard_normal((_SAMPLES, *shape[1:])) * spread + middle
    read = {name for n in net.nodes for name in n.input}
    outputs = [t.name for t in net.tensors[1:] if t.name not in read]
    return model(net.nodes, {"x": shape}, net.constants, outputs), {"x": data.astype(np.float32)}
