"""Means and maxima over a mask become operators, by every way that exports write them: the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from relax_graphs import apply, op, run
from tvm import relax

from hwptq.ir.composite import composite_kind
from hwptq.ir.dataflow import bindings
from hwptq.passes import FusePooling

SHAPE = (2, 5, 6)
LOWEST = float(np.finfo(np.float32).min)
Build = Callable[[Callable[..., Any], Any, Any], Any]


def number(value: float) -> Any:
    return relax.const(np.float32(value))


def graph(build: Build) -> Any:
    """main(x float32 [2, 5, 6], mask int64 [2, 5])."""
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    mask = relax.Var("mask", relax.TensorType(SHAPE[:2], "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, mask]):
        with builder.dataflow():
            out = builder.emit_output(build(builder.emit, x, mask))
        builder.emit_func_output(out)
    return builder.get()


def samples() -> list[dict[str, np.ndarray]]:
    x = np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)
    return [{"x": x, "mask": np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 1]], np.int64)}]


def expanded(emit: Any, mask: Any) -> Any:
    """The mask as real numbers of the shape of x: what sentence encoders export."""
    wide = emit(op.broadcast_to(emit(op.expand_dims(mask, [2])), SHAPE))
    return emit(op.astype(wide, "float32"))


def summed(emit: Any, x: Any, mask: Any, keepdims: bool = False) -> Any:
    return emit(op.sum(emit(op.multiply(x, mask)), [1], keepdims=keepdims))


def by_expanded_mask(emit: Any, x: Any, mask: Any) -> Any:
    wide = expanded(emit, mask)
    count = emit(op.clip(emit(op.sum(wide, [1])), 1e-9, np.inf))
    return emit(op.divide(summed(emit, x, wide), count))


def by_column(emit: Any, x: Any, mask: Any) -> Any:
    column = emit(op.astype(emit(op.expand_dims(mask, [2])), "float32"))
    return emit(op.divide(summed(emit, x, column), emit(op.sum(column, [1]))))


def counted_in_integers(emit: Any, x: Any, mask: Any) -> Any:
    column = emit(op.astype(emit(op.expand_dims(mask, [2])), "float32"))
    count = emit(op.astype(emit(op.sum(mask, [1], keepdims=True)), "float32"))
    count = emit(op.maximum(count, number(1e-9)))
    return emit(op.divide(summed(emit, x, column), count))


def with_the_axis_kept(emit: Any, x: Any, mask: Any) -> Any:
    column = emit(op.astype(emit(op.expand_dims(mask, [2])), "float32"))
    return emit(op.divide(summed(emit, x, column, keepdims=True), emit(op.sum(column, [1], keepdims=True))))


def filled(emit: Any, x: Any, mask: Any) -> Any:
    """masked_fill, then sums."""
    hidden = emit(op.logical_not(emit(op.not_equal(mask, relax.const(0, "int64")))))
    kept = emit(op.where(emit(op.expand_dims(hidden, [2])), number(0), x))
    count = emit(op.expand_dims(emit(op.astype(emit(op.sum(mask, [1])), "float32")), [1]))
    return emit(op.divide(emit(op.sum(kept, [1])), count))


def by_product(emit: Any, x: Any, mask: Any) -> Any:
    row = emit(op.expand_dims(emit(op.astype(mask, "float32")), [1]))
    total = emit(op.squeeze(emit(op.matmul(row, x)), [1]))
    count = emit(op.sum(emit(op.astype(mask, "float32")), [1], keepdims=True))
    return emit(op.divide(total, count))


def largest(emit: Any, x: Any, mask: Any) -> Any:
    wide = emit(op.broadcast_to(emit(op.expand_dims(mask, [2])), SHAPE))
    kept = emit(op.where(emit(op.equal(wide, relax.const(0, "int64"))), number(-1e9), x))
    return emit(op.max(kept, [1]))


FORMS: dict[str, tuple[str, Build]] = {
    "expanded": ("masked_mean", by_expanded_mask),
    "a column": ("masked_mean", by_column),
    "counted in integers": ("masked_mean", counted_in_integers),
    "the axis kept": ("masked_mean", with_the_axis_kept),
    "filled": ("masked_mean", filled),
    "a product": ("masked_mean", by_product),
    "largest": ("masked_max", largest),
}


def kinds(mod: Any) -> list[str]:
    return [k for _, v in bindings(mod["main"]) if (k := composite_kind(mod, v))]


@pytest.mark.parametrize("form", FORMS)
def test_a_pooling_becomes_one_operator(form: str) -> None:
    kind, build = FORMS[form]
    before = graph(build)
    after = apply(FusePooling(), before)
    assert kinds(after) == [kind]
    np.testing.assert_allclose(run(after, samples()), run(before, samples()), rtol=1e-5, atol=1e-6)


def test_what_it_makes_it_finds_again() -> None:
    """model.qdq.onnx has the nodes of the composite."""

    def build(emit: Any, x: Any, mask: Any) -> Any:
        each = emit(op.expand_dims(emit(op.not_equal(mask, relax.const(0, "int64"))), [2]))
        total = emit(op.sum(emit(op.where(each, x, number(0))), [1]))
        count = emit(op.sum(emit(op.astype(each, "float32")), [1]))
        return emit(op.divide(total, emit(op.maximum(count, number(1)))))

    assert kinds(apply(FusePooling(), graph(build))) == ["masked_mean"]


def another_count(emit: Any, x: Any, mask: Any) -> Any:
    """Divided by how many another row shows."""
    column = emit(op.astype(emit(op.expand_dims(mask, [2])), "float32"))
    other = emit(op.permute_dims(mask, [1, 0]))
    count = emit(op.reshape(emit(op.astype(emit(op.sum(other, [1])), "float32")), (5, 1)))
    first = emit(op.strided_slice(count, [0], [0], [2]))
    return emit(op.divide(summed(emit, x, column), first))


def weighted(emit: Any, x: Any, mask: Any) -> Any:
    """By places: the integers are no mask."""
    places = emit(op.multiply(mask, relax.const(np.arange(1, 6)[None], "int64")))
    column = emit(op.astype(emit(op.expand_dims(places, [2])), "float32"))
    return emit(op.divide(summed(emit, x, column), emit(op.sum(column, [1]))))


def by_channel(emit: Any, x: Any, mask: Any) -> Any:
    """A mask that differs by channel."""
    shown = emit(op.astype(emit(op.greater(x, number(0))), "float32"))
    return emit(op.divide(summed(emit, x, shown), emit(op.sum(shown, [1]))))


def much_added(emit: Any, x: Any, mask: Any) -> Any:
    column = emit(op.astype(emit(op.expand_dims(mask, [2])), "float32"))
    return emit(op.divide(summed(emit, x, column), emit(op.add(emit(op.sum(column, [1])), number(1)))))


@pytest.mark.parametrize("build", [another_count, weighted, by_channel, much_added])
def test_what_is_no_pooling_stays(build: Build) -> None:
    before = graph(build)
    after = apply(FusePooling(), before)
    assert kinds(after) == []
    np.testing.assert_array_equal(run(after, samples()), run(before, samples()))
