"""MatchOutputs: outputs come nearer to float on samples not seen; norms learn; one table stays one."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const
from test_group_weights import TARGET, language_model, of_kind, sample
from test_reconstruct_blocks import gated, grouped
from test_round_groups import DATA, error, lowered
from tvm import relax

from hwptq import passes
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.passes.graph.group_plan import GroupFormats

op = relax.op


def vectors(mod: tvm.IRModule) -> list[np.ndarray]:
    return [constant(v.args[1]) for _, v in bindings(mod["main"]) if op_name(v) == "nn.rms_norm"]


def test_the_output_is_nearer_to_float_than_block_by_block() -> None:
    mod = gated()
    rounded = apply(passes.RoundGroups(mod, DATA, TARGET), grouped(mod, "levels_1_3"))
    blocks = apply(passes.ReconstructBlocks(mod, DATA, TARGET), rounded)
    matched = apply(passes.MatchOutputs(mod, DATA, TARGET), blocks)
    assert error(mod, lowered(matched)) < error(mod, lowered(blocks))
    for old, new in zip(vectors(blocks), vectors(matched), strict=True):
        assert not np.array_equal(old, new)
        np.testing.assert_allclose(old, new, atol=0.2)


def test_a_table_that_is_the_head_learns_as_one() -> None:
    mod = language_model(40)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int3", 8, "int3", 8)), mod)
    matched = apply(passes.MatchOutputs(mod, DATA, TARGET), qdq)
    assert error(mod, lowered(matched)) < 0.95 * error(mod, lowered(qdq))
    (_, table), (_, head) = (
        of_kind(lowered(matched), kind)[at] for kind, at in ((GroupEmbedding, 0), (GroupDense, -1))
    )
    before = of_kind(lowered(qdq), GroupEmbedding)[0][1]
    for a, b in zip(table[1:], head[1:], strict=True):
        np.testing.assert_array_equal(constant(a), constant(b))
    assert not all(
        np.array_equal(constant(a), constant(b)) for a, b in zip(table[1:], before[1:], strict=True)
    )


def test_weights_of_eight_bits_stay() -> None:
    mod = language_model(40)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int8", 8, "int8", 8)), mod)
    tvm.ir.assert_structural_equal(apply(passes.MatchOutputs(mod, DATA, TARGET), qdq), qdq)


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
        apply(passes.MatchOutputs(mod, [sample(0)], TARGET), qdq), qdq, map_free_vars=True
    )


def test_samples_are_needed() -> None:
    mod = language_model(40)
    with pytest.raises(ValueError, match="MatchOutputs needs at least one sample"):
        apply(passes.MatchOutputs(mod, [], TARGET), grouped(mod, "int3"))
