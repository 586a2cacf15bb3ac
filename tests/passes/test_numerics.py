"""What [numerics] of a descriptor says is what graphs for it are made of."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import tvm
from relax_graphs import Emit, const, graph, network, nn, stats_of

from hwptq.ir.dataflow import bindings
from hwptq.ir.qdq import dequantizes, scale_and_zero
from hwptq.passes import FoldBatchNorm, FuseConvRelu, InsertQDQ, LowerToInteger
from hwptq.passes.graph.quantizable import float_reasons
from hwptq.quant.qparams import Grid, activation_qparams, weight_scales
from hwptq.report.coverage import integer_nodes
from hwptq.targets import load_target
from hwptq.targets.numerics import Numerics

ARM = load_target("arm-cortex-a")


def _lowered(numerics: Numerics) -> tuple[tvm.IRModule, tvm.IRModule]:
    """The network of the tests in QDQ form and in integers, for a device with such numbers."""
    target = replace(ARM, numerics=numerics)
    fused = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseConvRelu()])(network())
    qdq = InsertQDQ(target, stats_of(fused))(fused)
    return qdq, LowerToInteger(target)(qdq)


def _parameters(qdq: tvm.IRModule) -> tuple[np.ndarray, np.ndarray]:
    """All scales and all zero points of a QDQ module."""
    found: list[Any] = [scale_and_zero(v) for _, v in bindings(qdq["main"]) if dequantizes(v)]
    scales, zeros = zip(*found, strict=True)
    return np.concatenate([np.ravel(s) for s in scales]), np.concatenate([np.ravel(z) for z in zeros])


def test_scales_are_powers_of_two_and_zero_points_zero() -> None:
    qdq, integer = _lowered(Numerics("half-even", "power-of-two", "symmetric"))
    scales, zeros = _parameters(qdq)
    assert len(scales) > 20
    assert np.all(np.frexp(scales)[0] == 0.5)
    assert not np.any(zeros)
    for _, op, _ in integer_nodes(integer):
        known = {f.name: getattr(op, f.name) for f in fields(op)}
        assert known.get("rounding", "half-even") == "half-even"
        assert "rounding" in known or op.kind in ("quantize", "dequantize", "lookup", "max_pool", "pad")


def test_scales_of_other_devices_are_any() -> None:
    scales, zeros = _parameters(_lowered(Numerics())[0])
    assert np.any(np.frexp(scales)[0] != 0.5)
    assert np.any(zeros)


def test_what_cannot_round_as_the_device_stays_in_float() -> None:
    """A norm rounds as its definition says."""

    def build(emit: Emit, x: Any) -> Any:
        return emit(nn.layer_norm(emit(nn.relu(x)), const(8), const(8), axes=[-1]), "norm")

    fused = graph(build, x=(1, 4, 8))
    stats = stats_of(fused)
    target = replace(ARM, numerics=Numerics("double"))
    lowered = LowerToInteger(target)(InsertQDQ(target, stats)(fused))
    assert any("rounds double" in why for why in float_reasons(lowered["main"]).values())


@pytest.mark.parametrize("high", [0.1, 1.0, 127.0, 128.0])
def test_the_next_power_of_two_covers_the_range(high: float) -> None:
    q = activation_qparams(-0.3 * high, high, grid=Grid(powers_of_two=True, symmetric=True))
    assert q.zero_point == 0
    assert q.bounds[1] >= high * (1 - 1e-6)
    assert q.scale / 2 * 127 < high
    scale = weight_scales(np.array([[high, -0.5 * high]]), 0, grid=Grid(powers_of_two=True))
    assert scale == np.float32(q.scale)
