"""WidenActivations: more than bytes where a channel is small and counts, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import model, node, normal, save

from hwptq.data.dataset import from_batches
from hwptq.frontends.onnx.importer import import_onnx
from hwptq.options import Options
from hwptq.passes.graph.quantizable import assignment, float_reasons
from hwptq.passes.widen_activations import WidenActivations
from hwptq.pipeline.stages import prepare
from hwptq.pipeline.step import Job
from hwptq.recipe import Recipe
from hwptq.targets import load_target

CHANNELS = 8


def prepared(tmp_path, small: float, **words):
    """A convolution, SiLU, a depthwise convolution, a large one; of the first channel
    little is left, `small`, and the depthwise convolution makes up for it."""
    factors = np.ones((CHANNELS, 1, 1, 1), np.float32)
    factors[0] = small
    weights = {
        "w": normal(1, CHANNELS, CHANNELS, 1, 1) * factors,
        "d": normal(2, CHANNELS, 1, 3, 3) / factors,
        "o": normal(3, 64, CHANNELS, 3, 3) * np.array([[4] + [1] * 7], np.float32).reshape(1, -1, 1, 1),
    }
    nodes = [
        node("Conv", "x w", "a", name="first"), node("Sigmoid", "a", "s"), node("Mul", "a s", "m"),
        node("Conv", "m d", "b", name="depthwise", group=CHANNELS, pads=[1] * 4), node("Conv", "b o", "y"),
    ]  # fmt: skip
    imported = import_onnx(save(model(nodes, {"x": [1, CHANNELS, 12, 12]}, weights), tmp_path))
    data = from_batches([{"x": normal(i, 1, CHANNELS, 12, 12)} for i in range(4)], imported.inputs)
    job = Job(load_target("x86-64-vnni"), data, Options(recipe=Recipe(widen=True), **words))
    return prepare(imported.module, job)


def test_a_small_channel_that_counts_is_given_more_than_a_byte(tmp_path):
    found = prepared(tmp_path, 1e-3)
    assert assignment(found.float32["main"]) == {"depthwise": ("int16", "int8")}


@pytest.mark.parametrize(("small", "words"), [(1.0, {}), (1e-3, {"precision": "w8a8"})])
def test_else_bytes_do(tmp_path, small, words):
    assert not assignment(prepared(tmp_path, small, **words).float32["main"])


def test_a_target_without_wide_activations_has_no_choice(tmp_path):
    found = prepared(tmp_path, 1e-3, precision="w8a8")
    step = WidenActivations(load_target("nvidia-hopper-fp8"), found.stats, iter(()))
    assert step(found.float32).same_as(found.float32)


def powers(tmp_path, function: str, **words):
    """A function of the powers of complex numbers, of 40 dB, that two convolutions give, and a layer."""
    weights = {"u": normal(1, 8, 8, 1, 1), "v": normal(2, 8, 8, 1, 1), "w": normal(3, 4, 8, 1, 1)}
    nodes = [
        node("Conv", "x u", "a", name="real"), node("Conv", "x v", "b", name="imaginary"),
        node("Mul", "a a", "aa", name="square"), node("Mul", "b b", "bb", name="square2"),
        node("Add", "aa bb", "s", name="sum"), node(function, "s", "r", name="function"),
        node("Conv", "r w", "y"),
    ]  # fmt: skip
    imported = import_onnx(save(model(nodes, {"x": [1, 8, 6, 6]}, weights), tmp_path))
    scales = 10 ** np.random.default_rng(5).uniform(-2, 0, (4, 1, 1, 6, 6)).astype(np.float32)
    data = from_batches([{"x": normal(i, 1, 8, 6, 6) * s} for i, s in enumerate(scales)], imported.inputs)
    job = Job(load_target("x86-64-vnni"), data, Options(recipe=Recipe(widen=True), **words))
    return prepare(imported.module, job)


def test_a_root_of_squares_that_a_byte_would_drown_is_left_in_float(tmp_path):
    left = float_reasons(powers(tmp_path, "Sqrt").float32["main"])
    assert set(left) == {"square", "square2", "sum", "function"}


@pytest.mark.parametrize(
    ("function", "words"), [("Sigmoid", {}), ("Log", {}), ("Sqrt", {"precision": "w8a8"})]
)
def test_else_tables_of_bytes_do(tmp_path, function, words):
    """A logarithm in float needs a library, and its last bits are that library's."""
    assert not float_reasons(powers(tmp_path, function, **words).float32["main"])


def gated(tmp_path, target: str, constant: bool):
    """down(gate(x) * up(x)), or down(c * up(x)) with a constant."""
    weights = {"u": normal(1, 16, 16), "g": normal(2, 16, 16), "c": normal(3, 16), "d": normal(4, 16, 8)}
    gate = [] if constant else [node("MatMul", "x g", "b", name="gate")]
    nodes = [
        node("MatMul", "x u", "a", name="up"), *gate,
        node("Mul", "a c" if constant else "a b", "m", name="product"),
        node("MatMul", "m d", "y", name="down"),
    ]  # fmt: skip
    imported = import_onnx(save(model(nodes, {"x": [1, 4, 16]}, weights), tmp_path))
    data = from_batches([{"x": normal(i, 1, 4, 16)} for i in range(4)], imported.inputs)
    job = Job(load_target(target), data, Options(recipe=Recipe(widen=True)))
    return prepare(imported.module, job)


def test_what_a_gate_gives_is_int16_where_that_takes_hardly_longer(tmp_path):
    found = gated(tmp_path, "x86-64-vnni", constant=False)
    assert assignment(found.float32["main"]) == {"down": ("int16", "int8")}


@pytest.mark.parametrize(("target", "constant"), [("x86-64-amx", False), ("x86-64-vnni", True)])
def test_it_stays_in_bytes_where_that_takes_long_or_one_factor_is_constant(tmp_path, target, constant):
    assert not assignment(gated(tmp_path, target, constant).float32["main"])


def test_not_where_a_large_weight_leaves_the_step_as_it_is(tmp_path):
    """It stands where almost nothing comes in; products of others need no such scale."""
    small, large = np.ones((2, CHANNELS, 1, 1, 1), np.float32)
    small[0], large[0] = 1e-5, 1e4
    weights = {
        "w": normal(1, CHANNELS, CHANNELS, 1, 1) * small, "d": normal(2, CHANNELS, 1, 3, 3) * large,
        "o": normal(3, 64, CHANNELS, 1, 1), "p": normal(4, 64, 64, 3, 3),
        "low": np.float32(0), "high": np.float32(6),
    }  # fmt: skip
    nodes = [
        node("Conv", "x w", "a", name="first"), node("Relu", "a", "r"),
        node("Conv", "r d", "b", name="depthwise", group=CHANNELS, pads=[1] * 4),
        node("Clip", "b low high", "c", name="clip"), node("Conv", "c o", "e", name="last"),
        node("Conv", "e p", "y", name="large"),
    ]  # fmt: skip
    imported = import_onnx(save(model(nodes, {"x": [1, CHANNELS, 12, 12]}, weights), tmp_path))
    data = from_batches([{"x": normal(i, 1, CHANNELS, 12, 12)} for i in range(4)], imported.inputs)
    job = Job(load_target("x86-64-vnni"), data, Options(recipe=Recipe(widen=True)))
    assert "last" not in assignment(prepare(imported.module, job).float32["main"])
