"""Tokens that a mask hides: found by experiment, and left out of what calibration sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm_ffi import structural_equal

import hwptq
from hwptq import Options, Recipe
from hwptq.calibration import calibrate, calibrate_shards
from hwptq.data.dataset import from_batches
from hwptq.evaluate.hidden_tokens import hidden_tokens
from hwptq.pipeline.stages import fuse, quantize
from hwptq.pipeline.step import Job
from hwptq.progress import Progress
from hwptq.quant.observers import OBSERVERS
from hwptq.targets import load_target
from hwptq.workers.workers import Here

op = relax.op
WORDS, LENGTH, WIDTH = 9, 6, 4
LOUD = WORDS - 1  # a word that stands for padding, larger than any other


def table() -> np.ndarray:
    rows = np.random.default_rng(0).uniform(-1, 1, (WORDS, WIDTH)).astype(np.float32)
    rows[LOUD] = 100
    return rows


def reader(ends_with_tokens: bool = False) -> tvm.IRModule:
    """Attention with a mask, and the mean of what it shows; or the tokens themselves."""
    ids, mask = (relax.Var(name, relax.TensorType((1, LENGTH), "int64")) for name in ("ids", "mask"))
    builder = relax.BlockBuilder()
    with builder.function("main", [ids, mask]):
        with builder.dataflow():
            x = builder.emit(op.take(relax.const(table()), ids, axis=0))
            scores = builder.emit(op.matmul(x, builder.emit(op.permute_dims(x, [0, 2, 1]))))
            shown = builder.emit(op.astype(mask, "float32"))
            hides = builder.emit(op.subtract(shown, relax.const(np.float32(1))))
            hides = builder.emit(op.multiply(hides, relax.const(np.float32(1e9))))
            scores = builder.emit(op.add(scores, builder.emit(op.expand_dims(hides, 1))))
            mixed = builder.emit(op.matmul(builder.emit(op.nn.softmax(scores)), x))
            if ends_with_tokens:
                out = builder.emit_output(op.nn.relu(mixed))
            else:
                kept = builder.emit(op.multiply(mixed, builder.emit(op.expand_dims(shown, 2))))
                out = builder.emit_output(op.sum(kept, axis=1))
        builder.emit_func_output(out)
    return builder.get()


def sample(words: int, seed: int = 0) -> dict[str, np.ndarray]:
    """So many words; padding behind them."""
    ids = np.random.default_rng(seed).integers(0, LOUD, (1, LENGTH))
    ids[:, words:] = LOUD
    return {"ids": ids, "mask": (np.arange(LENGTH) < words).astype(np.int64)[None]}


def test_a_mask_is_known_and_where_tensors_have_their_tokens() -> None:
    found = hidden_tokens(reader(), [sample(LENGTH), sample(4)])
    assert found is not None
    assert found.mask == "mask"
    axes = {label: along for (_, label), along in found.axes.items()}
    assert axes["lv"] == (1,)  # rows of the table
    assert axes["lv1"] == (2,)  # the same, turned
    assert axes["lv2"] == (1, 2)  # scores: shown rows hold hidden columns
    np.testing.assert_array_equal(found.shown(sample(2)), [True] * 2 + [False] * 4)


@pytest.mark.parametrize("samples", [[sample(LENGTH)], []], ids=["nothing hidden", "no sample"])
def test_without_padding_there_is_nothing_to_hide(samples: list[dict[str, np.ndarray]]) -> None:
    assert hidden_tokens(reader(), samples) is None


def test_a_model_that_gives_its_tokens_hides_none() -> None:
    assert hidden_tokens(reader(ends_with_tokens=True), [sample(4)]) is None


def test_zeros_and_ones_that_hide_nothing_are_no_mask() -> None:
    """As the types of tokens that a BERT reads."""
    ids, kinds = (relax.Var(name, relax.TensorType((1, LENGTH), "int64")) for name in ("ids", "mask"))
    builder = relax.BlockBuilder()
    with builder.function("main", [ids, kinds]):
        with builder.dataflow():
            x = builder.emit(op.take(relax.const(table()), ids, axis=0))
            y = builder.emit(op.take(relax.const(table()), kinds, axis=0))
            out = builder.emit_output(op.sum(builder.emit(op.add(x, y)), axis=1))
        builder.emit_func_output(out)
    assert hidden_tokens(builder.get(), [sample(4)]) is None


def test_ranges_are_those_of_tokens_that_are_shown() -> None:
    mod, samples = reader(), [sample(1 + i % LENGTH, i) for i in range(12)]
    hidden = hidden_tokens(mod, samples)
    everything, shown = calibrate(mod, samples), calibrate(mod, samples, hidden=hidden)
    assert everything.ranges["lv"][1] == 100
    assert shown.ranges["lv"] == (table()[:LOUD].min(), shown.ranges["lv"][1])
    assert shown.ranges["lv"][1] <= 1
    data = from_batches(samples, {name: ((1, LENGTH), "int64") for name in ("ids", "mask")})
    sharded = calibrate_shards(mod, data, OBSERVERS["minmax"], Here(), Progress())
    assert sharded.ranges == shown.ranges


def encoder() -> tvm.IRModule:
    """Two dense layers behind a table, and the mean of the tokens that are shown."""
    rng = np.random.default_rng(1)
    ids, mask = (relax.Var(name, relax.TensorType((1, LENGTH), "int64")) for name in ("ids", "mask"))
    builder = relax.BlockBuilder()
    with builder.function("main", [ids, mask]):
        with builder.dataflow():
            x = builder.emit(op.take(relax.const(table()), ids, axis=0))
            for depth, width in ((WIDTH, 8), (8, WIDTH)):
                weight = relax.const(rng.standard_normal((depth, width)).astype(np.float32))
                x = builder.emit(op.nn.relu(builder.emit(op.matmul(x, weight))))
            shown = builder.emit(op.expand_dims(builder.emit(op.astype(mask, "float32")), 2))
            out = builder.emit_output(op.sum(builder.emit(op.multiply(x, shown)), axis=1))
        builder.emit_func_output(out)
    return builder.get()


@pytest.mark.parametrize("rounding", ["descent", "nearest"])
def test_what_stands_in_padding_decides_nothing(rounding: str) -> None:
    """Ranges, smoothing, rounded weights, and to the nearest ones corrected biases, are the same for any
    padding, and other ones for other words."""

    def quantized(padding: int, words: int) -> tvm.IRModule:
        samples = [sample(1 + i % LENGTH, i + words) for i in range(24)]
        for one in samples:
            one["ids"][one["mask"] == 0] = padding
        data = from_batches(samples, {name: ((1, LENGTH), "int64") for name in ("ids", "mask")})
        options = Options(recipe=Recipe.named("default", rounding=rounding))
        return quantize(fuse(encoder()), Job(load_target("x86-64-avx2"), data, options)).qdq

    first = quantized(LOUD, 0)
    assert structural_equal(first, quantized(2, 0))
    assert not structural_equal(first, quantized(2, 100))


def test_layers_of_the_report_are_measured_on_tokens_that_are_shown(tmp_path: Path) -> None:
    def layers(padding: int) -> list[dict[str, Any]]:
        samples = [sample(1 + i % LENGTH, i) for i in range(24)]
        for one in samples:
            one["ids"][one["mask"] == 0] = padding
        model = hwptq.compile(
            encoder(), "x86-64-avx2", calibration_data=samples, evaluation_data=samples[:8],
            output=tmp_path / str(padding),
        )  # fmt: skip
        return [{k: row[k] for k in ("name", "sqnr_db")} for row in model.report["layers"]]

    assert layers(LOUD) == layers(2)
