"""Weights with a scale for each group of inputs, from float to integers: layers, tables, what they share."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const, graph, samples
from tvm import relax

from hwptq import passes
from hwptq.backends.backend import why_not_run
from hwptq.evaluate.interpret import Interpreter
from hwptq.formats import format_of
from hwptq.ir.dataflow import constant
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.passes.graph.group_plan import GroupFormats, group_formats, grouped_weights
from hwptq.passes.graph.stored_weights import stored_weights
from hwptq.qdq_export import export_qdq
from hwptq.report.coverage import bits, coverage, integer_nodes
from hwptq.targets import load_target

op, nn = relax.op, relax.op.nn
TARGET = load_target("x86-64-avx2")
INT4 = GroupFormats("int4", 16, "int8", 8)


def language_model(tokens: int = 5) -> tvm.IRModule:
    """Rows of a table, a gated block of 40 channels with a bias, and the same table as the head."""
    table = const(50, 40, seed=1)
    index = relax.Var("ids", relax.TensorType((1, tokens), "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [index]):
        with builder.dataflow():
            x = builder.emit(op.take(table, index, axis=0))
            up = builder.emit(nn.relu(builder.emit(op.matmul(x, const(40, 24, seed=2)))))
            y = builder.emit(op.add(builder.emit(op.matmul(up, const(24, 40, seed=3))), const(40, seed=4)))
            y = builder.emit(op.add(x, y))
            head = relax.const(np.ascontiguousarray(constant(table).T))
            out = builder.emit_output(op.matmul(y, head))
        builder.emit_func_output(out)
    return apply(passes.FuseConvRelu(), builder.get())


def sample(seed: int, tokens: int = 5) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(seed).integers(0, 50, (1, tokens))}


def lowered(mod: tvm.IRModule, formats: GroupFormats = INT4, exclude: str | None = None) -> tvm.IRModule:
    qdq = apply(passes.InsertDynamicQDQ(TARGET, exclude, formats), mod)
    return apply(passes.LowerToInteger(TARGET), qdq)


def of_kind(integer: tvm.IRModule, kind: type) -> list[tuple]:
    return [(node, args) for _, node, args in integer_nodes(integer) if isinstance(node, kind)]


def test_layers_and_the_table_have_the_formats_of_their_places() -> None:
    integer = lowered(language_model())
    layers = of_kind(integer, GroupDense)
    assert [(n.weight, n.size, n.depth) for n, _ in layers] == [
        ("int4", 16, 40), ("int4", 16, 24), ("int8", 8, 40),
    ]  # fmt: skip
    cover = coverage(language_model(), integer)
    assert cover["macs_quantized"] == cover["macs_total"]
    assert [row["weight"] for row in bits(integer)] == ["int4", "int4", "int8"]
    assert bits(integer)[0]["weight_bytes"] == 24 * (20 + 3 * 2)


def test_a_table_of_factors_is_no_weight() -> None:
    """As of rotary positions: its rows multiply what a layer gives."""
    at, table = relax.Var("at", relax.TensorType((5,), "int64")), const(9, 40, seed=7)

    def turned(emit, x):
        turn = emit(op.expand_dims(emit(op.take(table, at, axis=0)), 0))
        layer = emit(op.matmul(x, const(40, 40, seed=8)))
        return emit(op.multiply(turn, layer))

    builder, x = relax.BlockBuilder(), relax.Var("x", relax.TensorType((1, 5, 40), "float32"))
    with builder.function("main", [x, at]):
        with builder.dataflow():
            out = builder.emit_output(turned(builder.emit, x))
        builder.emit_func_output(out)
    integer = lowered(apply(passes.FuseConvRelu(), builder.get()))
    assert len(of_kind(integer, GroupDense)) == 1
    assert of_kind(integer, GroupEmbedding) == []


def test_a_table_and_a_head_of_the_same_rows_stay_the_same() -> None:
    integer = lowered(language_model())
    (_, table), (_, head) = of_kind(integer, GroupEmbedding)[0], of_kind(integer, GroupDense)[-1]
    for a, b in zip(table[1:], head[1:], strict=True):
        np.testing.assert_array_equal(constant(a), constant(b))


def test_equal_rows_are_one_array_and_others_are_their_own() -> None:
    mod = language_model()
    table, up, down, head = grouped_weights(mod, mod["main"]).values()
    assert head.rows is table.rows
    assert (table.is_table, head.is_table) == (True, False)
    assert [w.shared for w in (table, up, down, head)] == [True, False, False, True]
    assert len({id(w.rows) for w in (table, up, down)}) == 3
    stored = stored_weights(mod, "main")
    assert [[weight.label for _, weight in each.readers] for each in stored] == [
        [table.label, head.label], [up.label], [down.label]
    ]  # fmt: skip


@pytest.mark.parametrize(("weight", "error"), [("int8", 0.03), ("int4", 0.3), ("int3", 0.6)])
def test_the_integers_are_as_close_to_float_as_their_bits_allow(weight: str, error: float) -> None:
    mod = language_model()
    integer = lowered(mod, GroupFormats(weight, 8, weight, 8))
    for seed in range(3):
        a, b = (Interpreter(m).run(sample(seed))[0] for m in (mod, integer))
        assert np.linalg.norm(a - b) < error * np.linalg.norm(a)


def test_the_simulation_differs_by_the_rounding_of_float32_alone() -> None:
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, INT4), language_model())
    integer = apply(passes.LowerToInteger(TARGET), qdq)
    a, b = (Interpreter(m).run(sample(1))[0] for m in (qdq, integer))
    np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(a).max())


def test_what_the_user_keeps_stays_in_float() -> None:
    mod = graph(lambda emit, x: emit(op.matmul(x, const(16, 24)), "up"), x=(1, 3, 16))
    mod = apply(passes.FuseConvRelu(), mod)
    integer = lowered(mod, exclude="up")
    assert of_kind(integer, GroupDense) == []
    np.testing.assert_array_equal(*(Interpreter(m).run(samples(mod, 1)[0])[0] for m in (mod, integer)))


@pytest.mark.parametrize(
    ("precision", "size", "found"),
    [
        (None, None, GroupFormats("int8", 32, "int8", 32)),
        ("w4a8", 64, GroupFormats("int4", 64, "int4", 32)),
        ("w3a8", None, GroupFormats("int3", 32, "int4", 16)),
        ("w2a8", 16, GroupFormats("levels_1_3", 16, "int4", 64)),
    ],
)
def test_a_precision_names_the_first_format_of_so_many_bits(precision, size, found) -> None:
    assert group_formats(TARGET, precision, size) == found


def test_what_a_target_does_not_offer_is_refused() -> None:
    with pytest.raises(ValueError, match="w5a8: x86-64-avx2 offers w8a8, w4a8, w3a8, w2a8 in groups"):
        group_formats(TARGET, "w5a8", 32)
    with pytest.raises(ValueError, match="hexagon-v66-npu offers no weights with a scale for each group"):
        group_formats(load_target("hexagon-v66-npu"), "w4a8", 32)


@pytest.mark.skipif(why_not_run(TARGET) is not None, reason=f"{TARGET.name}: {why_not_run(TARGET)}")
@pytest.mark.parametrize("weight", ["int8", "int4", "int3", "levels_1_3", "int2"])
def test_kernels_of_the_target_compute_the_same(weight: str) -> None:
    assert format_of(weight).bits <= 8
    integer = lowered(language_model(), GroupFormats(weight, 8, weight, 8))
    kernels = apply(passes.SelectKernels(TARGET), integer)
    built = relax.VirtualMachine(tvm.compile(kernels, target=tvm.target.Target(dict(TARGET.tvm))), tvm.cpu())
    for seed in range(2):
        found = built["main"](tvm.runtime.tensor(sample(seed)["ids"])).numpy()
        np.testing.assert_array_equal(found, Interpreter(integer).run(sample(seed))[0])


@pytest.mark.parametrize("weight", ["int8", "int4", "levels_1_3"])
def test_the_qdq_file_gives_the_same_in_onnx_runtime(weight: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    formats = GroupFormats(weight, 8, weight, 8)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, formats), language_model())
    model = export_qdq(qdq, ["y"], "model")
    blocks = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
    assert len(blocks) == 4
    assert all({a.name: a.i for a in n.attribute}["block_size"] == 8 for n in blocks)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for seed in range(3):
        found, expected = session.run(None, sample(seed))[0], Interpreter(qdq).run(sample(seed))[0]
        # where ONNX Runtime sums in another order, a code of an activation may be the next one
        assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)
