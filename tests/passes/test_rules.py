"""What a rule says of the nodes that it is for reaches the passes."""

from __future__ import annotations

from typing import Any

import pytest
from relax_graphs import Emit, apply, const, graph, labels, nn, op, stats_of

from hwptq.formats import INT8
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.lowering import rules
from hwptq.lowering.rules import family_of, lowers, rule_of
from hwptq.passes import FuseConvRelu, InsertQDQ
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.targets import load_target
from hwptq.targets import op_kinds as kinds_module
from hwptq.targets.op_kinds import op_kinds, register_op

ARM, GPU = load_target("arm-cortex-a"), load_target("nvidia-hopper-fp8")


@pytest.fixture(autouse=True)
def _rules_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten behind it."""
    rules.rules()
    monkeypatch.setattr(rules, "_RULES", dict(rules._RULES))
    monkeypatch.setattr(kinds_module, "_ADDED", dict(kinds_module._ADDED))


def log_softmax() -> Any:
    def build(emit: Emit, x: Any) -> Any:
        y = emit(nn.log_softmax(emit(op.matmul(x, const(6, 5)), "first"), axis=-1), "middle")
        return emit(op.matmul(y, const(5, 4, seed=1)), "last")

    mod = graph(build, x=(3, 6))
    return apply(FuseConvRelu(), mod)


def middle(mod: Any) -> Any:
    return next(v for _, v in bindings(mod["main"]) if op_name(v) == "nn.log_softmax")


def lower(e: Any, node: Any, out: Any) -> Any:
    raise NotImplementedError


def test_a_node_without_a_rule_has_no_family() -> None:
    mod = log_softmax()
    assert rule_of(mod, middle(mod)) is None
    assert family_of(mod, middle(mod)) is None


def test_two_rules_for_one_node_are_refused() -> None:
    with pytest.raises(ValueError, match=r"there is a rule for nn\.max_pool2d already"):
        lowers("nn.max_pool2d", family="max_pool")(lower)


def test_the_range_that_results_always_have_is_not_that_of_the_data() -> None:
    mod = log_softmax()
    lowers("nn.log_softmax", family="mul", output_range=(-25.5, 0.0))(lower)
    qdq = apply(InsertQDQ(ARM, stats_of(mod)), mod)
    scales = {
        labels(qdq)[var]: (constant(value.args[1]).item(), constant(value.args[2]).item())
        for var, value in bindings(qdq["main"])
        if op_name(value) == "quantize"
    }
    assert scales["middle"] == (pytest.approx(0.1, rel=1e-6), INT8.qmax)


def test_why_a_node_cannot_be_quantized_is_the_reason() -> None:
    mod = log_softmax()
    lowers("nn.log_softmax", family="mul", why_not=lambda call: "it is Tuesday")(lower)
    qdq = apply(InsertQDQ(ARM, stats_of(mod)), mod)
    assert float_reasons(qdq["main"])["middle"] == "it is Tuesday"


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_family_of_ones_own(everywhere: bool) -> None:
    """Where portable code runs, a device need not list it; a descriptor may list it in any case."""
    lowers("nn.log_softmax", family="log_softmax", everywhere=everywhere)(lower)
    assert "log_softmax" in op_kinds()
    assert (ARM.rule("log_softmax") is not None) == everywhere
    assert GPU.rule("log_softmax") is None


def test_what_descriptors_list_stays_theirs_to_list() -> None:
    register_op("resize", everywhere=True)
    assert GPU.rule("resize") is None
    assert op_kinds().count("resize") == 1
