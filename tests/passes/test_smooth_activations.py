"""SmoothActivations: outputs stay, channels of outliers shrink, what else reads a norm sees it unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from relax_graphs import apply, const, graph, operators, outputs_preserved, samples, stats_of
from tvm import relax

from hwptq import passes
from hwptq.ir.dataflow import bindings, constant, op_name
from hwptq.passes.smooth_activations import SmoothActivations

op, nn = relax.op, relax.op.nn


def encoder(residual=True, outlier=50.0):
    """A layer norm with one channel of outliers, read by two dense layers and perhaps by a residual."""

    def build(emit, x):
        gamma = np.ones(8, np.float32)
        gamma[3] = outlier
        y = emit(nn.layer_norm(x, relax.const(gamma), const(8, seed=4), axes=[-1]), "norm")
        a = emit(op.add(emit(op.matmul(y, const(8, 8, seed=1)), "query"), const(8, seed=2)))
        b = emit(op.matmul(y, const(8, 8, seed=3)), "key")
        out = emit(op.add(a, b), "sum")
        return emit(op.add(out, y), "residual") if residual else out

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 5, 8)))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_outputs_stay(residual, strength):
    mod = encoder(residual)
    outputs_preserved(mod, apply(SmoothActivations(samples(mod, 3), strength), mod))


@pytest.mark.parametrize(("residual", "norms"), [(True, 2), (False, 1)])
def test_the_norm_is_doubled_only_for_other_readers(residual, norms):
    mod = encoder(residual)
    after = apply(SmoothActivations(samples(mod, 3)), mod)
    assert operators(after).count("nn.layer_norm") == norms


def test_factors_follow_the_paper():
    """With all of the strength on the activations, every channel reaches 1 on the samples."""
    mod, data = encoder(residual=False), samples(encoder(), 4)
    after = apply(SmoothActivations(data, 1.0), mod)
    low, high = stats_of(after, data).ranges["norm#1"]
    assert max(-low, high) == pytest.approx(1.0, rel=1e-5)
    old, new = (stats_of(m, data).ranges for m in (mod, apply(SmoothActivations(data, 0.5), mod)))
    assert np.ptp(new["norm#1"]) < 0.5 * np.ptp(old["norm"])


def test_a_dead_channel_stays():
    def build(emit, x):
        gamma, beta = np.ones(4, np.float32), np.ones(4, np.float32)
        gamma[1] = beta[1] = 0
        y = emit(nn.layer_norm(x, relax.const(gamma), relax.const(beta), axes=[-1]), "norm")
        return emit(op.matmul(y, const(4, 3)), "dense")

    mod = apply(passes.FuseConvRelu(), graph(build, x=(2, 4)))
    after = apply(SmoothActivations(samples(mod, 2)), mod)
    (norm,) = [v for _, v in bindings(after["main"]) if op_name(v) == "nn.layer_norm"]
    assert constant(norm.args[1])[1] == 0
    outputs_preserved(mod, after)


def test_nothing_to_smooth():
    mod = graph(lambda emit, x: emit(nn.relu(x)), x=(1, 4))
    assert operators(apply(SmoothActivations(samples(mod, 1)), mod)) == ["nn.relu"]


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength of smoothing"):
        SmoothActivations([], strength)


def test_samples_are_needed():
    mod = encoder()
    with pytest.raises(ValueError, match="at least one sample"):
        apply(SmoothActivations([]), mod)
