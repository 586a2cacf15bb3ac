"""Caches that grow by Concat become caches of a fixed size: the same logits, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx_models import normal

from hwptq import passes
from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.steps import Steps
from hwptq.frontends.frontend import read_model

WORDS, WIDTH, ROWS = 13, 8, 6


def growing(*extra: str) -> onnx.ModelProto:
    """One layer of attention [1, 2, P, 4] over what came before. extra: "mask" an input of ones; "position"
    an input; "range", "slice" positions and rows of a causal mask that follow from the length of the caches;
    "root" a factor that does, too."""
    nodes: list[Any] = []
    held: dict[str, np.ndarray] = {
        "table": normal(1, WORDS, WIDTH), "places": normal(2, ROWS, WIDTH), "out": normal(3, WIDTH, WORDS),
        "heads": np.array([1, 1, 2, 4]), "flat": np.array([1, 1, WIDTH]), "one": np.array(1),
        "two": np.array(2), "zero": np.array([0]), "ones": np.array([1]), "least": np.float32(-1e9),
    }  # fmt: skip
    held |= {f"w{n}": normal(4 + i, WIDTH, WIDTH) for i, n in enumerate("qkv")}

    def node(op: str, inputs: str, output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs.split(), [output], f"n_{output}", **attributes))
        return output

    node("Shape", "past.k", "sizes")
    node("Gather", "sizes two", "length", axis=0)
    node("Add", "length one", "total")
    node("Gather", "table t", "x0")
    x = "x0"
    if "range" in extra:
        node("Range", "length total one", "at")
        x = node("Add", f"{x} {node('Gather', 'places at', 'placed')}", "x1")
    if "position" in extra:
        x = node("Add", f"{x} {node('Gather', 'places step', 'stepped')}", "x2")
    for n in "qkv":
        node("MatMul", f"{x} w{n}", f"{n}0")
        node("Transpose", node("Reshape", f"{n}0 heads", f"{n}1"), n, perm=[0, 2, 1, 3])
    for n in "kv":
        node("Concat", f"past.{n} {n}", f"present.{n}", axis=2)
    score = node("MatMul", f"q {node('Transpose', 'present.k', 'kt', perm=[0, 1, 3, 2])}", "score0")
    if "slice" in extra:
        held["causal"] = np.where(np.tri(ROWS, dtype=bool), 0, -1e9).astype(np.float32)
        for name, of in (("begin", "length"), ("end", "total")):
            node("Unsqueeze", f"{of} zero", name)
        node("Slice", "causal begin end zero", "causal0")
        score = node("Add", f"{score} {node('Slice', 'causal0 zero end ones', 'causal1')}", "score1")
    if "mask" in extra:
        node("Where", f"{node('Cast', 'mask', 'seen', to=TensorProto.BOOL)} {score} least", "score2")
        score = "score2"
    if "root" in extra:
        node("Div", f"{score} {node('Cast', 'total', 'root', to=TensorProto.FLOAT)}", "score3")
        score = "score3"
    node("Softmax", score, "share", axis=-1)
    node("Transpose", node("MatMul", "share present.v", "mixed"), "mixed0", perm=[0, 2, 1, 3])
    node("MatMul", f"{node('Add', f'{x} ' + node('Reshape', 'mixed0 flat', 'mixed1'), 'sum')} out", "y")
    shape = [1, 2, "P", 4]
    inputs = [("t", TensorProto.INT64, [1, 1])]
    inputs += [("mask", TensorProto.INT64, [1, "all"])] if "mask" in extra else []
    inputs += [("step", TensorProto.INT64, [1, 1])] if "position" in extra else []
    inputs += [(f"past.{n}", TensorProto.FLOAT, shape) for n in "kv"]
    outputs = [("y", [1, 1, WORDS]), ("present.k", [1, 2, "Q", 4]), ("present.v", [1, 2, "Q", 4])]
    graph = helper.make_graph(
        nodes, "growing", [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in held.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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
    "extra", [(), ("mask",), ("position",), ("range",), ("slice",), ("range", "slice", "mask")], ids="+".join
)
def test_steps_give_what_growing_caches_give(extra: tuple[str, ...]) -> None:
    model, tokens = growing(*extra), [3, 1, 4, 1, 5, 9]
    axes = {"P": ROWS - 1, **({"all": ROWS} if "mask" in extra else {})}
    read = read_model(model, axes)
    noted = replace(read, module=passes.CarryCaches()(read.module))
    place = "step" if "position" in extra else "position"
    assert list(noted.fed) == ["t", place]
    assert (noted.caches.context, len(noted.caches.pairs), noted.position) == (ROWS, 2, place)
    steps, shape = Steps(noted.module), noted.fed[place][0]
    found = [
        steps.run({"t": np.array([[token]]), place: np.full(shape, i)})[0] for i, token in enumerate(tokens)
    ]
    np.testing.assert_allclose(np.stack(found), by_growing(model, tokens), rtol=1e-4, atol=1e-4)


def test_what_depends_on_the_length_otherwise_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"'n_score3'.*depends on how many rows"):
        read_model(growing("root"), {"P": 5})


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
