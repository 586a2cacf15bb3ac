"""What a multiply-accumulate costs on a device, measured by running layers there: tables of [cost].

For each kind of layer and each pair of dtypes, a model of one such layer and one of nine are compiled and
run; the difference is that of eight layers, without what reading a sample and writing the outputs take.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .artifact import load
from .errors import HwptqError, InputError, UnsupportedError
from .flow import compile as compile_model
from .formats import Pair, precision_word
from .latency import Latency, latency
from .options import Options
from .progress import Progress
from .recipe import RECIPES
from .targets import Descriptor
from .targets.schema import OpRule, priced

FEW, MANY = 1, 9  # layers
_NANOSECONDS = {"ms": 1e6, "instructions": 1.0}
_SAMPLES = 4  # of calibration


@dataclass(frozen=True)
class Shape:
    """A layer with as many channels in as out; convolutions have an image of size x size, and a window."""

    channels: int
    size: int = 0
    window: int = 0
    depthwise: bool = False

    @property
    def weight(self) -> tuple[int, ...]:
        """Of the layer, as ONNX has it."""
        depth = 1 if self.depthwise else self.channels
        return (self.channels, depth, self.window, self.window) if self.size else (depth, self.channels)

    @property
    def input(self) -> tuple[int, ...]:
        """Of what the layer reads and gives."""
        return (1, self.channels, self.size, self.size) if self.size else (1, self.channels)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one layer."""
        return int(np.prod(self.weight)) * (self.size**2 if self.size else 1)


#: What is measured of each kind: shapes as networks have them, small enough for a microcontroller.
SHAPES = {
    "conv2d": Shape(32, 12, 3),
    "depthwise_conv2d": Shape(64, 12, 3, depthwise=True),
    "dense": Shape(256),
}


@dataclass(frozen=True)
class Cost:
    """value: of a multiply-accumulate, in nanoseconds or instructions (`unit`); by: what ran it."""

    op: str
    dtype: str
    value: float
    unit: str
    by: str


def measure(
    target: Descriptor, name: str, on: str | None, runs: int, trust: bool = False,
    progress: Progress | None = None,
) -> list[Cost]:  # fmt: skip
    """The costs of each kind of layer and of each dtype that prices one, in the order of the descriptor; not
    of dtypes that no layer of such a kind takes alone.

    `name`: what the target is loaded by; `on`: a place, as --on names it. Raises HwptqError where the code
    can't be run, or where times are so noisy that more layers take less.
    """
    found: dict[tuple[str, str], Cost] = {}
    kinds = list(_measured(target))
    for rule, pair in (progress or Progress()).track(kinds, len(kinds)):
        key = rule.op, priced(pair)
        cost = None if key in found else _cost(rule.op, pair, name, on, runs, trust)
        if cost is not None:
            found[key] = cost
    if not found:
        raise UnsupportedError(f"{target.name}: no kind of layer can be measured: write the costs by hand")
    return list(found.values())


def _measured(target: Descriptor) -> Iterator[tuple[OpRule, Pair]]:
    """Rules of layers, with pairs that a word of --precision stands for."""
    for rule in target.ops:
        for pair in rule.pairs if rule.op in SHAPES else ():
            if precision_word(pair):
                yield rule, pair


def _cost(op: str, pair: Pair, name: str, on: str | None, runs: int, trust: bool) -> Cost | None:
    """None where the layers do not get this pair."""
    shape = SHAPES[op]
    words = {"precision": precision_word(pair), "executor": on, "trust_descriptor": trust}
    options = Options(lower_ends=True, recipe=RECIPES["fast"], samples=1, **words)  # type: ignore[arg-type]
    times = []
    with TemporaryDirectory(prefix="hwptq-") as folder:
        for count in (FEW, MANY):
            out, images = Path(folder, str(count)), samples(shape)
            model = compile_model(network(shape, count), name, images, output=out, options=options)
            model.close()
            if {(row["activation"], row["weight"]) for row in model.report["bits"]} != {pair}:
                return None
            with closing(load(out, on)) as loaded:
                times.append(latency(loaded, runs))
    few, many = times
    value = per_product(few, many, shape)
    if value <= 0:
        raise HwptqError(
            f"{op} with {' and '.join(pair)}: {MANY} layers took no longer than {FEW}; let nothing else run "
            f"there, and give more --runs"
        )
    unit = "ns" if few.unit == "ms" else few.unit
    return Cost(op, priced(pair), value, unit, few.executor)


def per_product(few: Latency, many: Latency, shape: Shape) -> float:
    """Nanoseconds, or instructions, of a multiply-accumulate, from the least that FEW and MANY layers took.

    1 ms and 1.8 ms for 8 layers more of 1e5 products each -> 1 ns.
    """
    return _NANOSECONDS[few.unit] * (many.least - few.least) / ((MANY - FEW) * shape.macs)


def network(shape: Shape, count: int) -> onnx.ModelProto:
    """`count` layers of a shape in a row, random weights, each result of about the range of the input."""
    random, nodes, weights = np.random.default_rng(0), [], []
    for i in range(count):
        fan_in = int(np.prod(shape.weight[1:])) if shape.size else shape.channels
        weight = random.normal(0, fan_in**-0.5, shape.weight).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        groups = shape.channels if shape.depthwise else 1
        window = {"pads": [shape.window // 2] * 4, "group": groups} if shape.size else {}
        kind = "Conv" if shape.size else "MatMul"
        nodes.append(helper.make_node(kind, [f"x{i}", f"w{i}"], [f"x{i + 1}"], f"layer{i}", **window))
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape.input) for i in (0, count)]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def samples(shape: Shape) -> list[dict[str, np.ndarray]]:
    """Random inputs."""
    random = np.random.default_rng(1)
    return [{"x0": random.normal(0, 1, shape.input).astype(np.float32)} for _ in range(_SAMPLES)]


_FIRST_WORDS = "# per multiply-accumulate: "


def check_writable(file: Path) -> None:
    """Raise InputError, before anything is measured, where a descriptor can't be written, or would replace a
    file that is none of these."""
    if not os.access(file.parent, os.W_OK):
        raise InputError(f"{file}: its folder is missing or can't be written; give another --output")
    if not file.exists():
        return
    try:
        ours = file.read_text(encoding="utf-8").startswith(_FIRST_WORDS)
    except (OSError, UnicodeDecodeError):
        ours = False
    if not ours:
        raise InputError(f"{file}: is there, and no file of hwptq targets measure; give another --output")


def descriptor(name: str, target: Descriptor, costs: list[Cost]) -> str:
    """The text of a descriptor that extends a target by what was measured; those of convolutions, or else of
    the first kind, are [cost] of what has none of its own.

    `name`: what the target is found by from where the text is stored.
    """
    usual: dict[str, float] = {}
    for cost in sorted(costs, key=lambda cost: cost.op != "conv2d"):
        usual.setdefault(cost.dtype, cost.value)
    units = ", ".join(sorted({f"{cost.unit} by {cost.by}" for cost in costs}))
    lines = [
        f"{_FIRST_WORDS}{units}",
        "schema = 1", f'name = "{target.name}-measured"', f'extends = "{name}"',
        f'summary = "{target.summary[:150]}, costs measured"', "", "[cost]",
        *(f"{dtype} = {value:.6g}" for dtype, value in usual.items()),
    ]  # fmt: skip
    for op in dict.fromkeys(cost.op for cost in costs):
        own = ", ".join(f"{cost.dtype} = {cost.value:.6g}" for cost in costs if cost.op == op)
        lines += ["", "[[op]]", f'op = "{op}"', f"cost = {{ {own} }}"]
    return "\n".join(lines) + "\n"
