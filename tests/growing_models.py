"""Steps of a language model whose caches grow by Concat, with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_models import normal

WORDS, WIDTH, ROWS = 13, 8, 6


def growing(*extra: str) -> onnx.ModelProto:
    """One layer of attention [1, 2, P, 4] over what came before. extra: "mask" an input of ones; "position"
    an input; "range", "slice" positions and rows of a causal mask that follow from the length of the caches;
    "root" a factor that does, too. "moved": tokens and positions are flattened before they are looked up;
    "copied": of caches, copies are given; "chosen": the mask is gathered from a column; "values last": caches
    of values have the new row in front."""
    nodes: list[Any] = []
    held: dict[str, np.ndarray] = {
        "table": normal(1, WORDS, WIDTH), "places": normal(2, ROWS, WIDTH), "out": normal(3, WIDTH, WORDS),
        "heads": np.array([1, 1, 2, 4]), "flat": np.array([1, 1, WIDTH]), "one": np.array(1),
        "two": np.array(2), "zero": np.array([0]), "ones": np.array([1]), "rest": np.array([-1, 1]),
        "least": np.float32(-1e9),
    }  # fmt: skip
    held |= {f"w{n}": normal(4 + i, WIDTH, WIDTH) for i, n in enumerate("qkv")}

    def node(op: str, inputs: str, output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs.split(), [output], f"n_{output}", **attributes))
        return output

    node("Shape", "past.k", "sizes")
    node("Gather", "sizes two", "length", axis=0)
    node("Add", "length one", "total")
    token, step = "t", "step"
    if "moved" in extra:
        token = node("Reshape", "t rest", "t0")
        step = node("Add", f"{node('Cast', 'step', 'step0', to=TensorProto.INT64)} zero", "step1")
    node("Gather", f"table {token}", "x0")
    x = "x0"
    if "range" in extra:
        node("Range", "length total one", "at")
        x = node("Add", f"{x} {node('Gather', 'places at', 'placed')}", "x1")
    if "position" in extra:
        x = node("Add", f"{x} {node('Gather', f'places {step}', 'stepped')}", "x2")
    for n in "qkv":
        node("MatMul", f"{x} w{n}", f"{n}0")
        node("Transpose", node("Reshape", f"{n}0 heads", f"{n}1"), n, perm=[0, 2, 1, 3])
    for n in "kv":
        both = f"{n} past.{n}" if "values last" in extra and n == "v" else f"past.{n} {n}"
        if "copied" in extra:
            node("Concat", both, f"whole.{n}", axis=2)
            copied = node("Identity", f"whole.{n}", f"copy.{n}")
            node("Cast", copied, f"present.{n}", to=TensorProto.FLOAT)
        else:
            node("Concat", both, f"present.{n}", axis=2)
    score = node("MatMul", f"q {node('Transpose', 'present.k', 'kt', perm=[0, 1, 3, 2])}", "score0")
    if "slice" in extra:
        held["causal"] = np.where(np.tri(ROWS, dtype=bool), 0, -1e9).astype(np.float32)
        for name, of in (("begin", "length"), ("end", "total")):
            node("Unsqueeze", f"{of} zero", name)
        node("Slice", "causal begin end zero", "causal0")
        score = node("Add", f"{score} {node('Slice', 'causal0 zero end ones', 'causal1')}", "score1")
    if "mask" in extra:
        shown = "mask"
        if "chosen" in extra:
            held["every"] = np.arange(ROWS)[None, None, None]
            node("Reshape", f"mask {node('Constant', '', 'column', value_ints=[ROWS, 1])}", "mask0")
            shown = node("Reshape", f"{node('Gather', 'mask0 every', 'mask1', axis=0)} here", "mask2")
            held["here"] = np.array([1, 1, 1, ROWS])
        seen = node("Cast", shown, "seen", to=TensorProto.BOOL)
        node("Where", f"{seen} {score} least", "score2")
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


def grouped_query() -> onnx.ModelProto:
    """The same with ONNX Runtime's operator for the attention, as its generators of models write it."""
    model = growing("mask")
    graph = model.graph
    kept = [n for n in graph.node if n.output[0] in ("x0", "q0", "k0", "v0", "sum", "y")]
    mask = [
        helper.make_node("ReduceSum", ["mask", "ones"], ["shown"], "n_shown"),
        helper.make_node("Sub", ["shown", "ones"], ["last"], "n_last"),
        helper.make_node("Cast", ["last"], ["lens"], "n_lens", to=TensorProto.INT32),
    ]
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(ROWS, np.int32), "most"))
    attention = helper.make_node(
        "GroupQueryAttention", ["q0", "k0", "v0", "past.k", "past.v", "lens", "most"],
        ["mixed1", "present.k", "present.v"], "attention", domain="com.microsoft", num_heads=2,
        kv_num_heads=2, scale=1.0,
    )  # fmt: skip
    nodes = [
        onnx.NodeProto.FromString(n.SerializeToString()) for n in (*kept[:4], *mask, attention, *kept[4:])
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def merged(*extra: str) -> onnx.ModelProto:
    """The step as one branch of an If on `use_cache_branch`, whose other one fills `cross` from `hidden`."""
    step = growing(*extra)
    kinds = {"y": [1, 1, WORDS], "present.k": [1, 2, "Q", 4], "present.v": [1, 2, "Q", 4]}
    made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in kinds.items()]
    cross = helper.make_tensor_value_info("cross", TensorProto.FLOAT, ["H", WIDTH])
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in step.graph.initializer]
    empty = onnx.numpy_helper.from_array(np.zeros((0, WIDTH), np.float32), "cross")
    later = helper.make_graph(step.graph.node, "later", [], [*made, cross], [*tensors, empty])
    nodes = [
        helper.make_node("Gather", ["table0", "t"], ["x"], "n_first"),
        helper.make_node("MatMul", ["x", "out0"], ["y"], "n_words"),
        *(helper.make_node("Identity", [f"past.{n}"], [f"present.{n}"], f"n_{n}") for n in "kv"),
        helper.make_node("Relu", ["hidden"], ["cross"], "n_cross"),
    ]
    held = {"table0": normal(1, WORDS, WIDTH), "out0": normal(3, WIDTH, WORDS)}
    own = [onnx.numpy_helper.from_array(v, k) for k, v in held.items()]
    first = helper.make_graph(nodes, "first", [], [*made, cross], own)
    choice = helper.make_node(
        "If", ["use_cache_branch"], [o.name for o in (*made, cross)], "choice",
        then_branch=later, else_branch=first,
    )  # fmt: skip
    hidden = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["H", WIDTH])
    chosen = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    graph = helper.make_graph([choice], "merged", [*step.graph.input, hidden, chosen], [*made, cross])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
