"""Limits of an operator in a descriptor: what is beyond them stays in float, or is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tvm
from relax_graphs import Emit, const, graph, nn, op, stats_of

from hwptq.passes import FuseConvRelu, InsertQDQ, KeepUnlisted, LowerToInteger
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.report.coverage import integer_nodes
from hwptq.targets import Descriptor, load_target

ARM = load_target("arm-cortex-a")


def _limited(kind: str, **limits: Any) -> Descriptor:
    return replace(ARM, ops=tuple(replace(r, **limits) if r.op == kind else r for r in ARM.ops))


def _network() -> tvm.IRModule:
    """Two convolutions, of windows of 3 and of 5, a pooling and a dense layer."""

    def build(emit: Emit, x: Any) -> Any:
        a = emit(nn.relu(emit(nn.conv2d(x, const(8, 4, 3, 3), padding=1), "small")))
        b = emit(nn.relu(emit(nn.conv2d(a, const(6, 8, 5, 5), strides=(2, 2), dilation=(2, 1)), "large")))
        c = emit(nn.max_pool2d(b, (3, 3), (1, 1), padding=(1, 1, 1, 1)), "pool")
        return emit(op.matmul(emit(op.mean(c, axis=[2, 3])), const(6, 10)), "dense")

    return FuseConvRelu()(graph(build, x=(1, 4, 14, 14)))


def _reasons(target: Descriptor) -> dict[str, str]:
    fused = _network()
    qdq = InsertQDQ(target, stats_of(fused))(fused)
    lowered = LowerToInteger(target)(qdq)
    reasons = float_reasons(lowered["main"])
    assert len([o for _, o, _ in integer_nodes(lowered) if o.kind == "conv2d"]) == 2 - (len(reasons) > 0)
    return reasons


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ({"most_window": 3}, "a window of 5, conv2d has at most 3"),
        ({"most_stride": 1}, "a stride of 2, conv2d has at most 1"),
        ({"most_dilation": 1}, "a dilation of 2, conv2d has at most 1"),
        ({"channels_multiple": 4}, "6 channels, conv2d takes multiples of 4"),
    ],
)
def test_what_is_beyond_stays_in_float_with_its_reason(limits: dict[str, int], why: str) -> None:
    (found,) = set(_reasons(_limited("conv2d", **limits)).values())
    assert found == why


def test_what_is_within_is_in_integers() -> None:
    limits = {
        "most_window": 5,
        "most_stride": 2,
        "most_dilation": 2,
        "most_channels": 8,
        "channels_multiple": 2,
    }
    assert _reasons(_limited("conv2d", **limits)) == {}


def test_a_descriptor_may_refuse_the_model() -> None:
    fused = _network()
    target = _limited("max_pool", most_window=2, beyond="error")
    with pytest.raises(Exception, match="a window of 3, max_pool has at most 2: the descriptor says"):
        InsertQDQ(target, stats_of(fused))(fused)


def test_models_that_come_quantized_have_the_same_limits_but_for_layers() -> None:
    qdq = InsertQDQ(ARM, stats_of(_network()))(_network())
    reasons = float_reasons(KeepUnlisted(_limited("max_pool", most_window=2))(qdq)["main"])
    assert set(reasons.values()) == {"a window of 3, max_pool has at most 2"}
