"""EqualizeDepthwise: outputs stay, and channels that depthwise convolutions read come to like ranges."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model, node, normal, save
from relax_graphs import apply, const, graph, nn, op, operators, outputs_preserved, same, samples
from tvm import relax

from hwptq import passes
from hwptq.data.dataset import from_batches
from hwptq.evaluate.downstream import Network
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.ir.dataflow import constant
from hwptq.options import Options
from hwptq.passes.graph.channel_links import layers
from hwptq.passes.graph.quantizable import assignment
from hwptq.pipeline.stages import insert, integers, prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import Recipe
from hwptq.targets import load_target

ARM = load_target("arm-cortex-a")
CHANNELS = 8
FACTORS = 1000.0 ** -np.linspace(0, 1, CHANNELS, dtype=np.float32).reshape(-1, 1, 1, 1)


def depthwise(function, between=None, also=None):
    """A convolution of uneven channels, `function`, `between`, a depthwise convolution that makes up for it,
    and one over all; `also` reads the result of the function too."""

    def build(emit, x):
        y = emit(nn.conv2d(x, relax.const(normal(0, CHANNELS, 3, 1, 1) * FACTORS)), "first")
        y = function(emit, y)
        z = between(emit, y) if between else y
        up = relax.const(normal(1, CHANNELS, 1, 3, 3) / FACTORS)
        z = emit(nn.conv2d(z, up, padding=1, groups=CHANNELS), "depthwise")
        z = emit(nn.conv2d(z, const(5, CHANNELS, 1, 1, seed=2)), "last")
        return emit(op.concat([z, also(emit, y)], axis=1)) if also else z

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 3, 12, 10)))


def silu(emit, x):
    return emit(op.multiply(x, emit(op.sigmoid(x), "sigmoid")), "silu")


FUNCTIONS = {
    "none": lambda emit, x: x,
    "relu": lambda emit, x: emit(nn.relu(x), "relu"),
    "leaky": lambda emit, x: emit(nn.leakyrelu(x, 0.1), "leaky"),
    "silu": silu,
    "gelu": lambda emit, x: emit(nn.gelu(x), "gelu"),
}
BETWEEN = {
    "nothing": None,
    "max_pool": lambda emit, y: emit(nn.max_pool2d(y, (2, 2), (1, 1))),
    "avg_pool": lambda emit, y: emit(
        nn.avg_pool2d(y, (2, 2), (1, 1), padding=(1, 1, 0, 0), count_include_pad=True)
    ),
}


def reaches(mod):
    """The range of each channel that the depthwise convolution reads, over the samples."""
    (read,) = [unit.args[0] for unit in layers(mod, mod["main"]).values() if int(unit.head.attrs.groups) > 1]
    values = [Network(mod).values(sample)[read] for sample in samples(mod, 4)]
    return np.abs(np.concatenate(values)).max(axis=(0, 2, 3))


def equalized(mod, target=ARM, **words):
    return apply(passes.EqualizeDepthwise(target, samples(mod, 4), **words), mod)


@pytest.mark.parametrize(
    ("function", "between"),
    [*((f, "nothing") for f in FUNCTIONS), ("relu", "max_pool"), ("none", "avg_pool"), ("silu", "max_pool")],
)
def test_outputs_stay(function, between):
    mod = depthwise(FUNCTIONS[function], BETWEEN[between])
    after = equalized(mod)
    assert not same(mod, after)
    outputs_preserved(mod, after)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_channels_come_near_to_one_range(function):
    """Those of a layer half the way: a channel may be larger on other data."""
    mod = depthwise(FUNCTIONS[function])
    before, after = reaches(mod), reaches(equalized(mod))
    assert before.min() < before.max() / 50
    left = np.sqrt(before.min() / before.max()) if operators(mod) == operators(equalized(mod)) else 1
    assert after.min() > left * after.max() / 4  # zero is one code for all: ranges lie on either side of it


@pytest.mark.parametrize("function", ["none", "relu", "leaky"])
def test_what_commutes_with_a_scale_costs_no_operator(function):
    mod = depthwise(FUNCTIONS[function])
    assert operators(equalized(mod)) == operators(mod)


@pytest.mark.parametrize("function", ["silu", "gelu"])
def test_a_function_gets_a_product_with_a_number_for_each_channel_once(function):
    mod = depthwise(FUNCTIONS[function])
    after = equalized(mod)
    assert sorted(operators(after)) == sorted([*operators(mod), "multiply"])
    assert same(after, equalized(after))


def test_others_read_the_function_as_it_was():
    mod = depthwise(silu, also=lambda emit, y: emit(nn.conv2d(y, const(4, CHANNELS, 1, 1, seed=3)), "other"))
    after = equalized(mod)
    outputs_preserved(mod, after)
    assert operators(after).count("multiply") == 3  # the function, its copy, and the product


def test_a_channel_that_is_silent_on_the_data_is_not_made_loud():
    """Behind ReLU it may speak on other data: then it is to fit the range of the others."""
    quiet = np.zeros((CHANNELS, 1, 1), np.float32)
    quiet[0] = -50

    def relu(emit, x):
        return emit(nn.relu(emit(op.add(x, relax.const(quiet)), "bias")), "relu")

    mod = depthwise(relu)
    before, after = (next(iter(layers(m, m["main"]).values())) for m in (mod, equalized(mod)))
    first, then = (constant(unit.args[1])[0] for unit in (before, after))
    assert np.abs(then).max() <= 4 * np.abs(first).max()


def test_weights_of_one_scale_and_clamps_stay():
    mod = depthwise(FUNCTIONS["relu"])
    assert same(mod, equalized(mod, granularity="tensor"))
    assert same(mod, equalized(mod, load_target("nvidia-hopper-fp8")))
    clamped = depthwise(lambda emit, x: emit(op.clip(x, 0, 6)))
    assert same(clamped, equalized(clamped))


@pytest.fixture
def quantized(tmp_path):
    """(float outputs, those in integers, the dtypes of layers) with and without the step."""
    weights = {
        "w": normal(1, CHANNELS, CHANNELS, 1, 1) * FACTORS,
        "d": normal(2, CHANNELS, 1, 3, 3) / FACTORS,
        "o": normal(3, 64, CHANNELS, 3, 3) * FACTORS[::-1].reshape(1, -1, 1, 1),
    }
    nodes = [
        node("Conv", "x w", "a", name="first"), node("Sigmoid", "a", "s"), node("Mul", "a s", "m"),
        node("Conv", "m d", "b", name="depthwise", group=CHANNELS, pads=[1] * 4), node("Conv", "b o", "y"),
    ]  # fmt: skip
    imported = import_onnx(save(model(nodes, {"x": [1, CHANNELS, 12, 12]}, weights), tmp_path))
    data = from_batches([{"x": normal(i, 1, CHANNELS, 12, 12)} for i in range(8)], imported.inputs)

    def found(**steps):
        job = Job(ARM, data, Options(recipe=Recipe(**steps)))
        prepared = prepare(imported.module, job)
        integer = Interpreter(integers(insert(prepared, job), job))
        real = Interpreter(imported.module)
        pairs = [[i.run(s.inputs)[0] for i in (real, integer)] for s in data]
        exact, codes = (np.concatenate(side) for side in zip(*pairs, strict=True))
        sqnr = 10 * np.log10(np.sum(exact**2) / np.sum((exact - codes) ** 2))
        return sqnr, assignment(prepared.float32["main"])

    return found


def test_bytes_then_do_where_int16_was_needed(quantized):
    bytes_alone, _ = quantized()
    _, widened = quantized(widen=True)
    scaled, left = quantized(depthwise=True, widen=True)
    assert widened
    assert not left
    assert scaled > bytes_alone + 10
