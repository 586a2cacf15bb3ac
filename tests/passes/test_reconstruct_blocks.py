"""ReconstructBlocks: outputs come nearer to float, also on samples not seen; what must stay stays."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const
from test_group_weights import TARGET, language_model, of_kind, sample
from test_round_groups import DATA, error, lowered
from tvm import relax

from hwptq import passes
from hwptq.ir.dataflow import constant
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.passes.graph.group_plan import GroupFormats

op, nn = relax.op, relax.op.nn


def grouped(mod: tvm.IRModule, weight: str) -> tvm.IRModule:
    return apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats(weight, 8, "int8", 8)), mod)


def gated(tokens: int = 40) -> tvm.IRModule:
    """Rows of a table, attention and a gated block on a stream of RMS norms, a head of its own."""
    index = relax.Var("ids", relax.TensorType((1, tokens), "int64"))
    builder = relax.BlockBuilder()
    emit = builder.emit
    with builder.function("main", [index]):
        with builder.dataflow():
            x = emit(op.take(const(50, 32, seed=1), index, axis=0))
            a = emit(nn.rms_norm(x, const(32, seed=2, spread=1.0), axes=[-1]))
            q, k, v = (emit(op.matmul(a, const(32, 32, seed=3 + i, spread=0.2))) for i in range(3))
            scores = emit(op.matmul(q, emit(op.permute_dims(k, [0, 2, 1]))))
            mixed = emit(op.matmul(emit(nn.softmax(scores, axis=-1)), v))
            x = emit(op.add(x, emit(op.matmul(mixed, const(32, 32, seed=6)))))
            a = emit(nn.rms_norm(x, const(32, seed=7, spread=1.0), axes=[-1]))
            gate, up = (emit(op.matmul(a, const(32, 48, seed=8 + i, spread=0.2))) for i in range(2))
            inner = emit(op.multiply(emit(nn.silu(gate)), up))
            x = emit(op.add(x, emit(op.matmul(inner, const(48, 32, seed=10, spread=0.2)))))
            out = builder.emit_output(op.matmul(x, const(32, 9, seed=11)))
        builder.emit_func_output(out)
    return apply(passes.FuseConvRelu(), builder.get())


@pytest.mark.parametrize("weight", ["levels_1_3", "int3"])
def test_the_output_is_nearer_to_float_than_layer_by_layer(weight: str) -> None:
    mod = gated()
    rounded = apply(passes.RoundGroups(mod, DATA, TARGET), grouped(mod, weight))
    better = apply(passes.ReconstructBlocks(mod, DATA, TARGET), rounded)
    assert error(mod, lowered(better)) < 0.97 * error(mod, lowered(rounded))


def test_rows_that_are_looked_up_and_eight_bits_stay() -> None:
    mod = language_model(40)
    formats = GroupFormats("int4", 8, "int4", 8)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, formats), mod)
    rounded = lowered(apply(passes.ReconstructBlocks(mod, DATA[:2], TARGET), qdq))
    (_, table), (_, head) = of_kind(rounded, GroupEmbedding)[0], of_kind(rounded, GroupDense)[-1]
    before = of_kind(lowered(qdq), GroupEmbedding)[0][1]
    for args in (head, before):
        np.testing.assert_array_equal(constant(args[1]), constant(table[1]))
    eight = grouped(mod, "int8")
    tvm.ir.assert_structural_equal(apply(passes.ReconstructBlocks(mod, DATA[:2], TARGET), eight), eight)


def test_behind_an_operator_without_a_derivative_all_stays() -> None:
    index = relax.Var("ids", relax.TensorType((1, 5), "int64"))
    builder = relax.BlockBuilder()
    with builder.function("main", [index]):
        with builder.dataflow():
            x = builder.emit(op.take(const(50, 16, seed=1), index, axis=0))
            x = builder.emit(op.cumsum(x, axis=1))
            out = builder.emit_output(op.matmul(x, const(16, 16, seed=2)))
        builder.emit_func_output(out)
    mod = apply(passes.FuseConvRelu(), builder.get())
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int3", 8, "int3", 8)), mod)
    tvm.ir.assert_structural_equal(
        apply(passes.ReconstructBlocks(mod, [sample(0)], TARGET), qdq), qdq, map_free_vars=True
    )


def test_no_more_samples_are_taken_than_memory_holds() -> None:
    mod, seen = language_model(40), []

    def watched():
        for one in DATA:
            seen.append(one)
            yield one

    stream = 40 * 40 * 4  # the tensor between blocks; four of them, and twice as many samples, may be held
    few = 2 * 3 * (4 * stream + 40 * 8)
    apply(passes.ReconstructBlocks(mod, watched(), TARGET, memory=few), grouped(mod, "levels_1_3"))
    assert len(seen) == 3


def test_samples_are_needed() -> None:
    mod = language_model(40)
    with pytest.raises(ValueError, match="ReconstructBlocks needs at least one sample"):
        apply(passes.ReconstructBlocks(mod, [], TARGET), grouped(mod, "int3"))
