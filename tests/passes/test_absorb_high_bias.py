"""AbsorbHighBias: outputs stay for any input, and channels that are never low need less range."""

from __future__ import annotations

import numpy as np
import pytest
from relax_graphs import apply, const, graph, nn, op, outputs_preserved, samples
from tvm import relax

from hwptq import passes
from hwptq.calibration import calibrate


def absorbed(mod, data):
    return apply(passes.AbsorbHighBias(calibrate(mod, data, axis=1)), mod)


def pair(between="none", padding=0, clip=True):
    """A depthwise layer of which some channels are always high, and a layer behind it."""
    bias = np.float32([4, 0, 3, -1, 2.5, 0.2]).reshape(1, 6, 1, 1)

    def build(emit, x):
        y = emit(nn.conv2d(x, const(6, 1, 3, 3, spread=0.1), groups=6), "depthwise")
        y = emit(op.add(y, relax.const(bias)))
        y = emit(op.clip(y, 0, 6)) if clip else emit(nn.relu(y))
        match between:
            case "max_pool":
                y = emit(nn.max_pool2d(y, (2, 2), padding=(1, 1, 1, 1)))
            case "avg_pool":
                y = emit(nn.avg_pool2d(y, (2, 2), padding=(1, 1, 0, 0)))
            case "padded_avg_pool":
                y = emit(nn.avg_pool2d(y, (2, 2), padding=(1, 1, 0, 0), count_include_pad=True))
            case "pad":
                y = emit(nn.pad(y, [0, 0, 0, 0, 1, 1, 1, 1]))
            case "relu":
                y = emit(nn.relu(y))
            case "dense":
                y = emit(op.mean(y, axis=[2, 3]))
                return emit(op.matmul(y, const(6, 3, seed=1)), "second")
        y = emit(nn.conv2d(y, const(4, 3, 2, 2, seed=1), groups=2, padding=padding), "second")
        return emit(op.add(y, const(4, 1, 1, seed=2)), "bias")

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 6, 7, 6)))


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("between", ["none", "max_pool", "avg_pool", "dense"])
def test_outputs_stay_and_channels_start_at_zero(between, clip):
    before = pair(between, clip=clip)
    data = samples(before, 6)
    after = absorbed(before, data)
    outputs_preserved(before, after)  # on the first two of the samples
    low_before, _ = calibrate(before, data, axis=1).rows("depthwise")
    low, _ = calibrate(after, data, axis=1).rows("depthwise")
    assert (low_before > 0).any()
    np.testing.assert_allclose(low, 0, atol=1e-5)


def test_outputs_stay_for_values_below_those_of_the_calibration():
    before = pair()
    narrow = [{"x": np.zeros((1, 6, 7, 6), np.float32)}]
    (low, _), (seen, _) = (
        calibrate(before, d, axis=1).rows("depthwise") for d in (samples(before, 2), narrow)
    )
    assert (low < seen).any()
    outputs_preserved(before, absorbed(before, narrow))


@pytest.mark.parametrize(
    ("between", "padding"), [("none", 1), ("pad", 0), ("padded_avg_pool", 0), ("relu", 0)]
)
def test_what_does_not_pass_an_offset_blocks(between, padding):
    before = pair(between, padding)
    data = samples(before, 3)
    low, _ = calibrate(before, data, axis=1).rows("depthwise")
    after = absorbed(before, data)
    assert np.array_equal(calibrate(after, data, axis=1).rows("depthwise")[0], low)
    outputs_preserved(before, after)
