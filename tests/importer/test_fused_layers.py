"""Operators of ONNX Runtime's optimizer, imported, compute what numpy says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_models import normal

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_proto

L, HEADS, SIZE = 6, 4, 8
H = HEADS * SIZE
MASK = np.array([[1, 1, 0, 1, 1, 0]], np.int32)


def run(
    op: str, inputs: str, values: Mapping[str, np.ndarray], constants: Mapping[str, np.ndarray],
    outputs: Sequence[str] = ("y",), opset: int = 17, **attributes: Any,
) -> list[np.ndarray]:  # fmt: skip
    """The outputs of a model of one node; "-" in `inputs` is one that is left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    node = helper.make_node(op, names, list(outputs), "node", domain="com.microsoft", **attributes)
    kinds = {n: helper.np_dtype_to_tensor_dtype(v.dtype) for n, v in values.items()}
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(n, kinds[n], v.shape) for n, v in values.items()],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs if n],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = import_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8), "model")
    return Interpreter(model.module).run({name: values[name] for name in model.inputs})


def by_heads(x: np.ndarray) -> np.ndarray:
    return x.reshape(1, -1, HEADS, SIZE).transpose(0, 2, 1, 3)


def mixed(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, added: np.ndarray | float = 0.0, scale: float = SIZE**-0.5
) -> np.ndarray:
    """Of heads [1, heads, steps, size]; `added` to the scores."""
    scores = q.astype(np.float64) @ k.transpose(0, 1, 3, 2) * scale + added
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found = weights / weights.sum(-1, keepdims=True) @ v
    return found.transpose(0, 2, 1, 3).reshape(1, -1, H)


CAUSAL = np.where(np.tri(L, dtype=bool), 0, -np.inf)
HIDDEN = (MASK - 1.0)[:, None, None] * 10000
FOUR = np.where(np.arange(L) < 4, 0.0, -10000.0)


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize(
    ("mask", "added", "attributes"),
    [
        (None, 0.0, {}), (MASK, HIDDEN, {}), (MASK.astype(bool), HIDDEN, {}),
        (np.array([4], np.int32), FOUR, {}),
        (None, CAUSAL, {"unidirectional": 1}), (MASK, HIDDEN + CAUSAL, {"unidirectional": 1}),
        (None, 0.0, {"scale": 0.3}),
    ],
)  # fmt: skip
def test_attention(mask: np.ndarray | None, added: Any, attributes: dict[str, Any], opset: int) -> None:
    x, w, b = normal(0, 1, L, H), normal(1, H, 3 * H, spread=0.2), normal(2, 3 * H)
    values = {"x": x} if mask is None else {"x": x, "m": mask}
    more = dict(num_heads=HEADS, opset=opset, **attributes)
    [found] = run("Attention", "x w b m" if mask is not None else "x w b", values, {"w": w, "b": b}, **more)
    wanted = mixed(
        *(by_heads(t) for t in np.split(x @ w + b, 3, -1)), added, attributes.get("scale", SIZE**-0.5)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(("end", "begin"), [(4, 0), (6, 2), (5, 1)])
def test_keys_between_two_ends(end: int, begin: int) -> None:
    x, w, b = normal(0, 1, L, H), normal(1, H, 3 * H, spread=0.2), normal(2, 3 * H)
    values = {"x": x, "m": np.array([end, begin], np.int32)}
    [found] = run("Attention", "x w b m", values, {"w": w, "b": b}, num_heads=HEADS)
    seen = (np.arange(L) >= begin) & (np.arange(L) < end)
    wanted = mixed(*(by_heads(t) for t in np.split(x @ w + b, 3, -1)), np.where(seen, 0.0, -10000.0))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_ends_of_more_than_one_sequence_are_refused() -> None:
    q, m = normal(0, 1, L, H), np.array([4, 0], np.int32)
    with pytest.raises(UnsupportedError, match="how many keys each sequence has"):
        run("MultiHeadAttention", "q k v - m", {"q": q, "k": q, "v": q, "m": m}, {}, num_heads=HEADS)


def test_tensors_of_queries_keys_and_values_are_refused() -> None:
    q, kv = normal(0, 1, L, H), normal(1, 1, L, HEADS, 2, SIZE)
    for names, values in (("p", {"p": normal(2, 1, L, HEADS, 3, SIZE)}), ("q k", {"q": q, "k": kv})):
        with pytest.raises(UnsupportedError, match="in one tensor are not supported"):
            run("MultiHeadAttention", names, values, {}, num_heads=HEADS)


@pytest.mark.parametrize("opset", [9, 10, 17])
def test_a_clip_behind_a_convolution(opset: int) -> None:
    """Before opset 11 the bounds of a Clip are attributes."""
    x, w = normal(0, 1, 2, 4, 4), np.ones((2, 2, 1, 1), np.float32)
    clip = {"activation": "Clip", "activation_params": [-0.5, 0.75]}
    [found] = run("FusedConv", "x w", {"x": x}, {"w": w}, opset=opset, **clip)
    wanted = np.clip(np.repeat(x.sum(1, keepdims=True), 2, 1), -0.5, 0.75)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, 2, 1, -2])
def test_root_mean_squares_over_the_last_axes(axis: int) -> None:
    x = normal(0, 1, L, H)
    over = (1, 2) if axis in (1, -2) else (2,)
    scale = normal(1, *(x.shape[a] for a in over))
    [found] = run("SimplifiedLayerNormalization", "x g", {"x": x}, {"g": scale}, axis=axis, epsilon=1e-3)
    wanted = x / np.sqrt((x.astype(np.float64) ** 2).mean(over, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_window_of_nothing_is_refused() -> None:
    values = {"q": normal(0, 1, L, H), "k": normal(1, 1, L, H), "v": normal(2, 1, L, H)}
    constants = {"s": np.array([L - 1], np.int32), "t": np.array(L, np.int32)}
    heads = {"num_heads": HEADS, "kv_num_heads": HEADS, "local_window_size": 0}
    with pytest.raises(UnsupportedError, match="a window of 0 is not supported"):
        run("GroupQueryAttention", "q k v - - s t", values, constants, **heads)


@pytest.mark.parametrize("bias", [False, True])
def test_attention_of_three(bias: bool) -> None:
    q, k, v = normal(0, 1, L, H), normal(1, 1, 9, H), normal(2, 1, 9, H)
    b, r = normal(3, 3 * H), normal(4, 1, HEADS, L, 9)
    names, constants = ("q k v b - r", {"b": b}) if bias else ("q k v - - r", {})
    values = {"q": q, "k": k, "v": v, "r": r}
    [found] = run("MultiHeadAttention", names, values, constants, num_heads=HEADS)
    added = np.split(b, 3) if bias else [np.float32(0)] * 3
    wanted = mixed(*(by_heads(t + a) for t, a in zip((q, k, v), added, strict=True)), r)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_attention_after_what_came_before() -> None:
    q, k, v = (normal(i, 1, 1, H) for i in range(3))
    past = {n: normal(i, 1, HEADS, 5, SIZE) for i, n in enumerate(("pk", "pv"), 3)}
    names, outputs = "q k v - - - pk pv", ("y", "keys", "values")
    found = run("MultiHeadAttention", names, {"q": q, "k": k, "v": v, **past}, {}, outputs, num_heads=HEADS)
    keys, values = (np.concatenate([past[p], by_heads(t)], 2) for p, t in (("pk", k), ("pv", v)))
    for mine, wanted in zip(found, (mixed(by_heads(q), keys, values), keys, values), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_embeddings_and_their_norm(masked: bool) -> None:
    ids, kinds = np.array([[3, 1, 4, 1, 5, 9]], np.int32), np.array([[0, 0, 1, 1, 0, 1]], np.int32)
    tables = {n: normal(i, rows, H) for i, (n, rows) in enumerate({"w": 20, "p": 16, "t": 2}.items())}
    constants = tables | {"g": normal(4, H), "b": normal(5, H)}
    values = {"i": ids, "s": kinds} | ({"m": MASK} if masked else {})
    names = f"i s w p t g b {'m' if masked else '-'}"
    found, counted, total = run(
        "EmbedLayerNormalization", names, values, constants, ("y", "n", "sum"), epsilon=1e-6
    )
    wanted = tables["w"][ids] + tables["p"][:L] + tables["t"][kinds]
    np.testing.assert_allclose(total, wanted, atol=1e-6)
    centred = wanted - wanted.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, normed * constants["g"] + constants["b"], atol=1e-5)
    assert counted.tolist() == [4 if masked else 0]


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("first", [None, 2])
def test_rotary_positions(neighbours: int, flat: bool, first: int | None) -> None:
    """A pair is a complex number, which e^(i angle) turns."""
    angles = np.arange(16)[:, None] / 10 ** (np.arange(SIZE // 2) / 3)
    places = np.array([[3, 0, 7, 8, 2, 5]]) if first is None else np.array([first])
    heads = normal(1, 1, HEADS, L, SIZE)
    x = heads.transpose(0, 2, 1, 3).reshape(1, L, H) if flat else heads
    constants = {"c": np.cos(angles).astype(np.float32), "s": np.sin(angles).astype(np.float32)}
    [found] = run(
        "RotaryEmbedding",
        "x p c s",
        {"x": x, "p": places},
        constants,
        interleaved=neighbours,
        num_heads=HEADS,
    )
    order = np.arange(SIZE).reshape(-1, 2) if neighbours else np.arange(SIZE).reshape(2, -1).T
    rows = places[0] if first is None else np.arange(L) + first
    turned = (heads[..., order[:, 0]] + 1j * heads[..., order[:, 1]]) * np.exp(1j * angles[rows])
    wanted = np.empty_like(heads)
    wanted[..., order[:, 0]], wanted[..., order[:, 1]] = turned.real, turned.imag
    wanted = wanted.transpose(0, 2, 1, 3).reshape(1, L, H) if flat else wanted
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("opset", [12, 17])
@pytest.mark.parametrize("op", ["BiasGelu", "FastGelu", "Gelu"])
def test_gelus(op: str, opset: int) -> None:
    x, b = normal(0, 1, L, H, spread=2), normal(1, H)
    names, constants = ("x", {}) if op == "Gelu" else ("x b", {"b": b})
    [found] = run(op, names, {"x": x}, constants, opset=opset)
    x = x.astype(np.float64) + (0 if op == "Gelu" else b)
    exact = np.vectorize(math.erf)(x / np.sqrt(2))
    fast = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    np.testing.assert_allclose(found, x / 2 * (1 + (fast if op == "FastGelu" else exact)), atol=1e-5)


@pytest.mark.parametrize("opset", [12, 16, 17])
def test_two_layers_of_a_fused_transformer(opset: int) -> None:
    """Shapes are known behind each fused operator, and norms before the opset that has them are taken."""
    constants = {"g": abs(normal(1, H)) + 0.5, "b": normal(2, H), "v": normal(4, H), "c": normal(5, 3 * H)}
    constants |= {"w": normal(6, H, 3 * H, spread=0.2), "u": normal(7, H, H, spread=0.2)}
    nodes, x = [helper.make_node("LayerNormalization", ["x", "g", "b"], ["n0"], "norm", axis=-1)], "n0"
    for i in range(2):
        a, m, n = f"a{i}", f"m{i}", f"n{i + 1}"
        more = {"domain": "com.microsoft"}
        nodes += [
            helper.make_node("Attention", [x, "w", "c"], [a], a, num_heads=HEADS, **more),
            helper.make_node("MatMul", [a, "u"], [m], m),
            helper.make_node("BiasGelu", [m, "v"], [f"{m}g"], f"{m}g", **more),
            helper.make_node("SkipLayerNormalization", [f"{m}g", x, "g", "b"], [n], n, epsilon=1e-5, **more),
        ]
        x = n
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", "L", H])],
        [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    values = normal(0, 1, L, H)
    [found] = Interpreter(import_proto(proto, "model", {"L": L}).module).run({"x": values})

    def norm(t: np.ndarray) -> np.ndarray:
        centred = t - t.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * constants["g"] + constants["b"]
        )

    wanted = norm(values.astype(np.float64))
    for _ in range(2):
        heads = (by_heads(t) for t in np.split(wanted @ constants["w"] + constants["c"], 3, -1))
        t = mixed(*heads) @ constants["u"] + constants["v"]
        wanted = norm(t / 2 * (1 + np.vectorize(math.erf)(t / np.sqrt(2))) + wanted)
    np.testing.assert_allclose(found, wanted, atol=3e-5)


ACTIVATIONS = {
    "Relu": ([], lambda x: np.maximum(x, 0)),
    "Tanh": ([], np.tanh),
    "Sigmoid": ([], lambda x: 1 / (1 + np.exp(-x))),
    "LeakyRelu": ([0.1], lambda x: np.where(x > 0, x, 0.1 * x)),
    "Clip": ([-0.3, 0.4], lambda x: np.clip(x, -0.3, 0.4)),
    "HardSigmoid": ([0.25, 0.4], lambda x: np.clip(0.25 * x + 0.4, 0, 1)),
}


@pytest.mark.parametrize("op", ACTIVATIONS)
def test_convolutions_and_products_with_their_activation(op: str) -> None:
    params, function = ACTIVATIONS[op]
    x, w, b, z = normal(0, 1, 3, 5, 5), normal(1, 4, 3, 1, 1), normal(2, 4), normal(3, 1, 4, 5, 5)
    more = {"activation": op} | ({"activation_params": params} if params else {})
    [found] = run("FusedConv", "x w b z", {"x": x, "z": z}, {"w": w, "b": b}, **more)
    wanted = np.einsum("bihw,oi->bohw", x, w[..., 0, 0]) + b[:, None, None] + z
    np.testing.assert_allclose(found, function(wanted), atol=1e-5)
    x, w = normal(4, 1, 7), normal(5, 4, 7)
    more = {"activation": op, "transB": 1}
    more |= {f"activation_{n}": p for n, p in zip(("alpha", "beta"), params, strict=False)}
    [found] = run("FusedGemm", "x w b", {"x": x}, {"w": w, "b": b}, **more)
    np.testing.assert_allclose(found, function(x @ w.T + b), atol=1e-5)


@pytest.mark.parametrize("flags", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_products_of_transposed_operands(flags: tuple[int, int]) -> None:
    a, b = normal(0, 1, 4, L, SIZE), normal(1, 1, 4, SIZE, 5)
    given = {n: t.swapaxes(2, 3) if f else t for n, t, f in zip("ab", (a, b), flags, strict=True)}
    [found] = run("FusedMatMul", "a b", given, {}, transA=flags[0], transB=flags[1], alpha=0.35)
    np.testing.assert_allclose(found, 0.35 * (a @ b), atol=1e-5)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "message"),
    [
        ("Attention", "x w b - past", {"num_heads": 4}, "past is not supported"),
        ("MultiHeadAttention", "x", {"num_heads": 4}, "in one tensor are not supported"),
        ("FusedGemm", "x w", {"activation": "Swish"}, "activation 'Swish' is not supported"),
        ("FusedMatMul", "x w", {"transBatchA": 1}, "transBatchA is not supported"),
    ],
)
def test_what_is_not_known_is_refused(op: str, inputs: str, attributes: dict[str, Any], message: str) -> None:
    values = {n: normal(0, 1, 4, H) for n in ("x", "past") if n in inputs.split()}
    constants = {n: normal(1, *s) for n, s in {"w": (H, 3 * H), "b": (3 * H,)}.items() if n in inputs.split()}
    with pytest.raises(UnsupportedError, match=rf"node 'node' \({op}\).*{message}"):
        run(op, inputs, values, constants, **attributes)
