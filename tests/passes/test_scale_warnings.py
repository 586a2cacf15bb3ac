"""Tensors that their scale leaves hardly a code are named."""

from __future__ import annotations

from relax_graphs import apply, network, samples, stats_of

from hwptq import passes
from hwptq.pipeline.scale_warnings import scale_warnings
from hwptq.pipeline.stages import fuse
from hwptq.targets import load_target


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
