"""RoundGroups: better weights by group from samples; what is looked up too, and the module given, stay."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from relax_graphs import apply
from test_group_weights import TARGET, language_model, of_kind, sample

from hwptq import passes
from hwptq.evaluate.interpret import Interpreter
from hwptq.ir.dataflow import constant
from hwptq.operators.group_dense import GroupDense, GroupEmbedding
from hwptq.passes.graph.group_layers import group_layers
from hwptq.passes.graph.group_plan import GroupFormats

DATA = [sample(seed, 40) for seed in range(24)]
HELD_OUT = [sample(100 + seed, 40) for seed in range(8)]


def error(mod: tvm.IRModule, other: tvm.IRModule) -> float:
    pairs = [[Interpreter(m).run(s)[0] for m in (mod, other)] for s in HELD_OUT]
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs) / sum(np.sum(a**2) for a, _ in pairs)))


def lowered(qdq: tvm.IRModule) -> tvm.IRModule:
    return apply(passes.LowerToInteger(TARGET), qdq)


@pytest.mark.parametrize("weight", ["int3", "levels_1_3", "int2"])
def test_the_output_is_nearer_to_float_on_samples_that_it_has_not_seen(weight: str) -> None:
    mod = language_model(40)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats(weight, 8, "int8", 8)), mod)
    rounded = apply(passes.RoundGroups(mod, DATA, TARGET), qdq)
    assert error(mod, lowered(rounded)) < 0.9 * error(mod, lowered(qdq))


def test_rows_that_are_looked_up_stay() -> None:
    mod = language_model(40)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int4", 8, "int4", 8)), mod)
    rounded = lowered(apply(passes.RoundGroups(mod, DATA[:2], TARGET), qdq))
    (_, table), (_, head) = of_kind(rounded, GroupEmbedding)[0], of_kind(rounded, GroupDense)[-1]
    before = of_kind(lowered(qdq), GroupEmbedding)[0][1]
    for args in (head, before):
        np.testing.assert_array_equal(constant(args[1]), constant(table[1]))


def test_samples_come_from_all_over_the_data() -> None:
    mod, seen = language_model(40), []

    def watched():
        for number, one in enumerate(DATA):
            seen.append(number)
            yield one

    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int4", 8, "int4", 8)), mod)
    apply(passes.RoundGroups(mod, watched(), TARGET, total=len(DATA), enough=120), qdq)
    assert max(seen) >= 16  # the third of three samples of 40 rows, of 24


def test_samples_are_needed() -> None:
    mod = language_model(40)
    qdq = apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int4", 8, "int4", 8)), mod)
    with pytest.raises(ValueError, match="RoundGroups needs at least one sample"):
        apply(passes.RoundGroups(mod, [], TARGET), qdq)


def test_layers_that_are_added_to_a_stream_know_it() -> None:
    mod = language_model(40)
    integer = lowered(apply(passes.InsertDynamicQDQ(TARGET, None, GroupFormats("int4", 8, "int4", 8)), mod))
    assert [layer.stream is not None for layer in group_layers(mod, integer, "main")] == [False, True, False]
