"""Tensors that their scale leaves hardly a code are named."""

from __future__ import annotations

import pytest
from relax_graphs import apply, network, samples, stats_of

from hwptq import passes
from hwptq.pipeline.scale_warnings import scale_warnings
from hwptq.pipeline.stages import fuse
from hwptq.targets import load_target


@pytest.mark.parametrize(
    ("activation", "smaller", "named"), [("int8", 100, True), ("int16", 100, False), ("int16", 20_000, True)]
)
def test_more_bits_keep_more_of_a_small_tensor(activation: str, smaller: float, named: bool):
    float32 = fuse(network())
    data, target = samples(float32), load_target("x86-64-vnni")
    stats = stats_of(float32, data)
    pairs = dict.fromkeys(("stem", "depthwise", "dense"), (activation, "int8"))
    qdq = apply(passes.InsertQDQ(target, stats, assignment=pairs), float32)
    tiny = stats_of(float32, [{k: v / smaller for k, v in sample.items()} for sample in data])
    [name] = data[0]
    assert (name in {w.where for w in scale_warnings(tiny, qdq)}) == named


def test_ranges_far_below_what_the_scale_offers():
    float32 = fuse(network())
    data = samples(float32)
    stats = stats_of(float32, data)
    qdq = apply(passes.InsertQDQ(load_target("x86-64-vnni"), stats), float32)
    assert scale_warnings(stats, qdq) == []
    tiny = stats_of(float32, [{k: v / 100 for k, v in sample.items()} for sample in data])
    found = scale_warnings(tiny, qdq)
    [name] = data[0]
    assert ("scale", name) in {(w.kind, w.where) for w in found}
    assert "keeps hardly a code" in found[0].text
