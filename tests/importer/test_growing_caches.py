"""Caches that grow by Concat become caches of a fixed size: the same logits, step by step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from growing_models import ROWS, grouped_query, growing, merged
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import normal

from hwptq import passes
from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.steps import Steps
from hwptq.frontends.frontend import read_model
from hwptq.frontends.model import Model
from hwptq.frontends.onnx import growing_caches


def by_growing(model: onnx.ModelProto, tokens: list[int]) -> np.ndarray:
    run, past, found = ReferenceEvaluator(model), {}, []
    names = [i.name for i in model.graph.input]
    for n in "kv":
        past[f"past.{n}"] = np.zeros((1, 2, 0, 4), np.float32)
    for i, token in enumerate(tokens):
        more = {"mask": np.ones((1, i + 1), np.int64), "step": np.array([[i]])}
        given = {"t": np.array([[token]]), **{k: v for k, v in more.items() if k in names}, **past}
        y, k, v = run.run(["y", "present.k", "present.v"], given)
        past = {"past.k": k, "past.v": v}
        found.append(y)
    return np.stack(found)


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("mask",),
        ("position",),
        ("range",),
        ("slice",),
        ("range", "slice", "mask"),
        ("copied",),
        ("position", "moved"),
    ],
    ids="+".join,
)
def test_steps_give_what_growing_caches_give(extra: tuple[str, ...]) -> None:
    axes = {"P": ROWS - 1, **({"all": ROWS} if "mask" in extra else {})}
    compare(growing(*extra), growing(*extra), axes, "step" if "position" in extra else "position")


def test_caches_that_grow_within_an_attention_of_onnx_runtime() -> None:
    compare(grouped_query(), growing("mask"), {"P": ROWS - 1, "all": ROWS}, "position")


def test_the_step_of_a_merged_decoder_is_the_branch_with_caches() -> None:
    """Without what the other branch reads, and what is empty in this one."""
    axes, fixed = {"P": ROWS - 1, "H": 3}, {"use_cache_branch": 1}
    compare(merged("range"), growing("range"), axes, "position", fixed)
    [warning] = read_model(merged(), axes, fixed).warnings
    assert "left out: cross" in warning.text
    first = read_model(merged(), axes, {"use_cache_branch": 0})
    assert first.outputs == ("y", "present.k", "present.v", "cross")
    with pytest.raises(UnsupportedError, match="--fix use_cache_branch=true or --fix use_cache_branch=false"):
        read_model(merged(), axes)


def compare(
    model: onnx.ModelProto, plain: onnx.ModelProto, axes: dict[str, int], place: str,
    fixed: dict[str, float] | None = None,
) -> None:  # fmt: skip
    """Steps of a model, with the caches fixed, are those of a plain one that computes the same."""
    tokens = [3, 1, 4, 1, 5, 9]
    read = read_model(model, axes, fixed)
    noted = replace(read, module=passes.CarryCaches()(read.module))
    assert list(noted.fed) == ["t", place]
    assert (noted.caches.context, len(noted.caches.pairs), noted.position) == (ROWS, 2, place)
    steps, shape = Steps(noted.module), noted.fed[place][0]
    found = [
        steps.run({"t": np.array([[token]]), place: np.full(shape, i)})[0] for i, token in enumerate(tokens)
    ]
    np.testing.assert_allclose(np.stack(found), by_growing(plain, tokens), rtol=1e-4, atol=1e-4)


def sample_of(read: Model) -> dict[str, np.ndarray]:
    return {
        name: normal(i, *shape) if dtype == "float32" else np.full(shape, 2, dtype)
        for i, (name, (shape, dtype)) in enumerate(read.inputs.items())
    }


@pytest.mark.parametrize("extra", [(), ("range", "slice", "mask"), ("position", "moved"), ("copied",)])
def test_the_check_compares_steps_with_the_growing_caches(extra: tuple[str, ...]) -> None:
    axes = {"P": ROWS - 1, **({"all": ROWS} if "mask" in extra else {})}
    read = read_model(growing(*extra), axes)
    found = read.check(sample_of(read))
    assert (found.reason, found.difference is not None) == ("", True)


def test_the_check_sees_steps_that_read_rows_behind_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of the rewrite, which the comparison with the rewritten model does not see."""
    monkeypatch.setattr(growing_caches, "_HIDDEN", np.float32(0))
    read = read_model(growing(), {"P": ROWS - 1})
    with pytest.raises(UnsupportedError, match=r"output 'y' of step 1 was imported wrongly"):
        read.check(sample_of(read))


def test_the_check_sees_a_position_that_is_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    right = growing_caches._Fixed.dependent

    def wrong(fixed: growing_caches._Fixed) -> growing_caches._Follows:
        follows = right(fixed)
        return replace(follows, ranges={name: start + 1 for name, start in follows.ranges.items()})

    monkeypatch.setattr(growing_caches._Fixed, "dependent", wrong)
    read = read_model(growing("range"), {"P": ROWS - 1})
    with pytest.raises(UnsupportedError, match=r"of step 1 was imported wrongly"):
        read.check(sample_of(read))


def test_what_depends_on_the_length_otherwise_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"'n_score3'.*depends on how many rows"):
        read_model(growing("root"), {"P": 5})


def test_caches_that_grow_otherwise_beside_others_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"input 'past.v' is as long as the caches, but no output"):
        read_model(growing("values last"), {"P": 5})


@pytest.mark.parametrize("axes", [["P", 4], [3, 4]])
def test_an_input_in_front_of_a_result_is_no_cache(axes: list[int | str]) -> None:
    """Of a file without tokens, as streams of sound have, or whose sizes are fixed."""
    nodes = [
        helper.make_node("Relu", ["x"], ["new"], "new"),
        helper.make_node("Concat", ["before", "new"], ["both"], "both", axis=1),
    ]
    shapes = {"before": [1, *axes], "x": [1, 2, 4]}
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    made = [helper.make_tensor_value_info("both", TensorProto.FLOAT, [1, "Q", 4])]
    graph = helper.make_graph(nodes, "stream", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    read = read_model(model, {"P": 3} if "P" in axes else {})
    values = {"before": normal(1, 1, 3, 4), "x": normal(2, 1, 2, 4)}
    assert {name: shape for name, (shape, _) in read.fed.items()} == {"before": (1, 3, 4), "x": (1, 2, 4)}
    [found] = Interpreter(read.module).run(values)
    np.testing.assert_array_equal(found, np.concatenate([values["before"], np.maximum(values["x"], 0)], 1))
