"""AssignBitWidths: the optimum among all assignments, at the costs of real kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from relax_graphs import apply, const, graph, labels, network, run, samples, stats_of
from tvm import relax

from hwptq import passes
from hwptq.bitwidths.budget import parse_budget
from hwptq.cache.cache import Cache
from hwptq.cache.store import Store
from hwptq.data.dataset import Sample
from hwptq.errors import BudgetError, InputError, UnsupportedError
from hwptq.evaluate.partner import Partner
from hwptq.ir.dataflow import bindings
from hwptq.ir.provenance import origins
from hwptq.passes.assign_bit_widths import Pairs, at_precision, end_layers, within_budget
from hwptq.passes.graph.quantizable import assignment, layer_dtypes
from hwptq.passes.layer_costs import LayerCosts
from hwptq.passes.stored_bytes import stored_bytes
from hwptq.passes.variants import Variants, uniform_variants
from hwptq.search.sensitivity import Sensitivity, measure_sensitivity
from hwptq.targets import Descriptor, load_target
from hwptq.workers.workers import Here

ARM = load_target("arm-cortex-a")

W8, W4, A4 = ("int8", "int8"), ("int8", "int4"), ("int4", "int4")
LAYERS = ["stem", "depthwise", "dense"]


def offering(*pairs: tuple[str, str]) -> Descriptor:
    """x86-64-avx2 with these pairs for every layer, and int4 twice as fast."""
    base = load_target("x86-64-avx2")
    ops = tuple(replace(r, pairs=pairs) if r.op in ("conv2d", "dense") else r for r in base.ops)
    return replace(base, ops=ops, cost={"int8": 2.0, "int4": 1.0})


@pytest.fixture(scope="module")
def fused() -> tvm.IRModule:
    return tvm.ir.transform.Sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()])(network())


@pytest.fixture(scope="module")
def target() -> Descriptor:
    return offering(W8, W4, A4)


@pytest.fixture(scope="module")
def variants(fused: tvm.IRModule, target: Descriptor) -> Variants:
    return uniform_variants(fused, target, stats_of(fused))


@pytest.fixture(scope="module")
def measured(fused: tvm.IRModule, variants: Variants) -> Sensitivity:
    return measure_sensitivity(fused, variants, [Sample(s) for s in samples(fused)])


def test_a_partner_says_what_counts(fused: tvm.IRModule, variants: Variants, measured: Sensitivity) -> None:
    """One that tells only the first output apart, and so another order of layers' losses than the noise."""
    partner = Partner(np.eye(5)[[0, 0, 1]] * np.array([[1.0], [-1.0], [0.0]]))
    found = measure_sensitivity(fused, variants, [Sample(s) for s in samples(fused)], partner=partner)
    assert (found.measure, measured.measure) == ("pairs", "noise")
    assert all(value >= 0 for pairs in found.values.values() for value in pairs.values())
    assert found.values["dense"][W4] > found.values["dense"][W8]
    with pytest.raises(InputError, match="embeddings of 4 values; the first output of the model has 5"):
        measure_sensitivity(fused, variants, [Sample(s) for s in samples(fused)], partner=Partner(np.eye(4)))


def test_an_ended_measurement_goes_on_with_the_samples_that_are_missing(
    fused: tvm.IRModule, variants: Variants, measured: Sensitivity, tmp_path: Path
) -> None:
    given, cache, done = [Sample(s) for s in samples(fused)], Cache(Store(tmp_path)), []

    class Ended(Here):
        """Work that ends with the second sample, or not at all."""

        def __init__(self, most: int) -> None:
            self.most = most

        def map(self, task: Any, items: Any) -> Iterator[Any]:
            for result in super().map(task, items):
                if self.most == 0:
                    raise KeyboardInterrupt
                self.most -= 1
                done.append(1)
                yield result

    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(fused, variants, given, workers=Ended(2), cache=cache)
    found = measure_sensitivity(fused, variants, given, workers=Ended(-1), cache=cache)
    assert found == measured
    resumed = len(done)
    measure_sensitivity(fused, variants, given, workers=Ended(-1))
    assert len(done) == 2 * resumed


def test_pairs_that_take_effect(variants: Variants) -> None:
    """Each layer has those that its kind offers, in the descriptor's order."""
    assert {name: layer.pairs for name, layer in variants.layers.items()} == {
        "stem": (W8, W4, A4), "depthwise": (W8,), "dense": (W8, W4, A4)
    }  # fmt: skip
    assert variants.layers["stem"].macs == 8 * 8 * 8 * 27
    assert variants.layers["stem"].highest == W8


def every_assignment(variants: Variants) -> list[Pairs]:
    names = list(variants.layers)
    choices = product(*(layer.pairs for layer in variants.layers.values()))
    return [dict(zip(names, pairs, strict=True)) for pairs in choices]


@pytest.mark.parametrize("kind", ["weights", "cycles", "macs-int4"])
def test_equals_the_best_of_all_assignments(
    kind: str, fused: tvm.IRModule, target: Descriptor, variants: Variants, measured: Sensitivity
) -> None:
    costs = LayerCosts(variants, target)

    def noise(pairs: Pairs) -> float:
        return sum(measured.values[name][pair] for name, pair in pairs.items() if name in measured.values)

    totals = sorted({costs.total(kind, pairs) for pairs in every_assignment(variants)})
    assert len(totals) > 2
    for limit in totals:
        text = (
            f"{kind}={100 * (1 - limit / costs.highest(kind))}%" if kind == "macs-int4" else f"{kind}={limit}"
        )
        chosen = within_budget(variants, costs, parse_budget(text), measured.values)
        fitting = [p for p in every_assignment(variants) if costs.total(kind, p) <= limit]
        assert costs.total(kind, chosen) <= limit
        assert noise(chosen) == min(map(noise, fitting))


def test_a_kind_of_operator_may_have_costs_of_its_own(target: Descriptor, variants: Variants) -> None:
    """What `hwptq targets measure` writes, beside [cost]."""
    ops = tuple(replace(rule, cost={"int8": 7.0}) if rule.op == "conv2d" else rule for rule in target.ops)
    usual, own = LayerCosts(variants, target), LayerCosts(variants, replace(target, ops=ops))
    for name, layer in variants.layers.items():
        for pair in layer.pairs:
            dear = layer.kind == "conv2d" and pair == ("int8", "int8")
            wanted = 7.0 * layer.macs if dear else usual.of("cycles", name, pair)
            assert own.of("cycles", name, pair) == wanted
    assert {layer.kind for layer in variants.layers.values()} > {"conv2d"}


def test_infeasible_names_what_is_feasible(
    target: Descriptor, variants: Variants, measured: Sensitivity
) -> None:
    costs = LayerCosts(variants, target)
    for kind in ("weights", "cycles", "cycles=x", "macs-int4"):
        text = {"weights": "weights=1B", "cycles": "cycles=1", "cycles=x": "cycles=0.01x"}.get(
            kind, "macs-int4=100%"
        )
        with pytest.raises(BudgetError) as caught:
            within_budget(variants, costs, parse_budget(text), measured.values)
        least = str(caught.value).rpartition(" is ")[2]
        within_budget(variants, costs, parse_budget(least), measured.values)  # raises nothing


def test_the_artefact_holds_no_more_than_predicted(
    fused: tvm.IRModule, target: Descriptor, variants: Variants
) -> None:
    """Every assignment, lowered as a whole, stores the bytes that the sum over its layers says, or less: the
    bounds of a clamp to int4 in front of the first layer, which only some have, are always counted."""
    costs, stats = LayerCosts(variants, target), stats_of(fused)
    for pairs in every_assignment(variants):
        steps = [
            passes.InsertQDQ(target, stats, assignment=pairs),
            passes.LowerToInteger(ARM),
            passes.SelectKernels(target),
        ]
        kernels = tvm.ir.transform.Sequential(steps)(fused)
        spare = costs.total("weights", pairs) - stored_bytes(kernels, target)
        assert spare == (0 if pairs["stem"] == A4 else 2 * target.memory.alignment)


def test_is_a_pass_whose_choice_insert_qdq_takes(
    fused: tvm.IRModule, target: Descriptor, measured: Sensitivity
) -> None:
    stats = stats_of(fused)
    step = passes.AssignBitWidths(target, stats, parse_budget("macs-int4=75.05%"), measured.values)
    chosen = apply(step, fused)
    pairs = assignment(chosen["main"])
    assert pairs["stem"][1] == pairs["dense"][1] == "int4"
    qdq = apply(passes.InsertQDQ(target, stats), chosen)
    assert layer_dtypes(qdq["main"]) == pairs
    first = apply(passes.InsertQDQ(target, stats), apply(passes.AssignBitWidths(target, stats), fused))
    assert set(layer_dtypes(first["main"]).values()) == {W8}


def test_errors_come_out_of_a_sequential_as_value_errors(
    fused: tvm.IRModule, target: Descriptor, measured: Sensitivity
) -> None:
    stats = stats_of(fused)
    with pytest.raises(ValueError, match="smallest that can is weights="):
        apply(passes.AssignBitWidths(target, stats, parse_budget("weights=1B"), measured.values), fused)
    with pytest.raises(ValueError, match="needs the sensitivity"):
        passes.AssignBitWidths(target, stats, parse_budget("weights=1B"))
    with pytest.raises(ValueError, match="not both"):
        passes.AssignBitWidths(target, stats, parse_budget("weights=1B"), measured.values, A4)


def test_a_precision_leaves_the_ends_and_what_is_kept(fused: tvm.IRModule, target: Descriptor) -> None:
    stats = stats_of(fused)
    assert sorted(end_layers(fused, uniform_variants(fused, target, stats))) == ["dense", "stem"]

    def dtypes(**options: Any) -> list[tuple[str, str]]:
        chosen = assignment(apply(passes.AssignBitWidths(target, stats, **options), fused)["main"])
        return [chosen[name] for name in LAYERS]

    assert dtypes(precision=W4) == [W8, W8, W8]
    assert dtypes(precision=W4, lower_ends=True) == [W4, W8, W4]
    assert dtypes(precision=A4, lower_ends=True) == [A4, W8, A4]
    assert dtypes(precision=A4, lower_ends=True, keep="^st") == [W8, W8, A4]
    assert dtypes(precision=W8) == [W8, W8, W8]


def residual_network() -> tvm.IRModule:
    """conv "inner" reads a tensor that an add reads too, so that it can't be int4: [1,3,8,8] -> [1,8,8,8]."""

    def build(emit: Any, x: Any) -> Any:
        a = emit(relax.op.nn.relu(emit(relax.op.nn.conv2d(x, const(8, 3, 3, 3), padding=1), "stem")))
        b = emit(relax.op.nn.conv2d(a, const(8, 8, 3, 3, seed=1), padding=1), "inner")
        c = emit(relax.op.nn.relu(emit(relax.op.add(a, b))))
        return emit(relax.op.nn.conv2d(c, const(8, 8, 3, 3, seed=2), padding=1), "last")

    return apply(passes.FuseConvRelu(), graph(build, x=(1, 3, 8, 8)))


@pytest.mark.parametrize(("pairs", "inner"), [((W8, W4, A4), W4), ((A4, W4, W8), W4), ((W8, A4), W8)])
def test_an_input_that_cant_be_int4_leaves_the_weight_int4(pairs: Any, inner: tuple[str, str]) -> None:
    mod = residual_network()
    choice = passes.AssignBitWidths(offering(*pairs), stats_of(mod), precision=A4, lower_ends=True)
    assert assignment(apply(choice, mod)["main"]) == {"stem": A4, "inner": inner, "last": A4}


def test_a_precision_that_nobody_offers() -> None:
    mod = tvm.ir.transform.Sequential([passes.FoldBatchNorm(), passes.FuseConvRelu()])(network())
    variants = uniform_variants(mod, offering(W8, W4), stats_of(mod))
    with pytest.raises(UnsupportedError) as caught:
        at_precision(variants, A4)
    assert caught.value.exit_code == 3
    assert "int4 weights with int4 activations" in str(caught.value)
    assert "conv2d: int8 weights with int8 activations or int4 weights with int8 activations" in str(
        caught.value
    )


def test_a_preference_for_int4_is_kept_but_for_excluded_layers(fused: tvm.IRModule) -> None:
    target, stats = offering(W4, W8), stats_of(fused)
    chosen = assignment(apply(passes.AssignBitWidths(target, stats, keep="dense"), fused)["main"])
    assert [chosen[name] for name in LAYERS] == [W4, W8, W8]


def only(mod: tvm.IRModule, qdq: tvm.IRModule, layer: str) -> tvm.IRModule:
    """A float module in which one layer, with what quantizes its arguments, comes from a QDQ module."""
    named, labels_of = origins(qdq["main"]), labels(mod)
    quantized = {named[v].hint: (v, value) for v, value in bindings(qdq["main"])}
    new: dict[Any, Any] = {p: p for p in mod["main"].params}
    by_name = {str(p.name): p for p in mod["main"].params}
    parts = {gv: f for gv, f in qdq.functions.items() if gv.name_hint != "main"}
    builder = relax.BlockBuilder(tvm.IRModule(parts))

    def resolve(expr: Any, known: dict[Any, Any]) -> Any:
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([resolve(f, known) for f in expr.fields])
        return known.get(expr, expr)

    def emit(value: Any, known: dict[Any, Any], name: str) -> Any:
        if not isinstance(value, relax.Call):
            return builder.emit(resolve(value, known), name)
        args = [resolve(a, known) for a in value.args]
        return builder.emit(relax.Call(value.op, args, value.attrs, value.ty_args), name)

    def from_qdq(name: str) -> Any:
        var, value = quantized[name]
        for a in value.args:
            if isinstance(a, relax.Var) and a not in taken:
                other = named[a].hint
                taken[a] = by_name[other] if other in by_name else from_qdq(other)
        taken[var] = emit(value, taken, name)
        return taken[var]

    taken: dict[Any, Any] = {}
    with builder.function("main", list(mod["main"].params)):
        for var, value in bindings(mod["main"]):
            name = labels_of[var]
            new[var] = by_name[name] = from_qdq(name) if name == layer else emit(value, new, name)
        builder.emit_func_output(new[mod["main"].body.body])
    return builder.get()


def test_sensitivity_is_the_noise_of_one_layer_quantized(
    fused: tvm.IRModule, variants: Variants, measured: Sensitivity
) -> None:
    """Against whole networks in which nothing but one layer is quantized."""
    data = samples(fused)
    assert set(measured.values) == {name for name, layer in variants.layers.items() if len(layer.pairs) > 1}
    for name, pairs in measured.values.items():
        for pair in pairs:
            alone = only(fused, variants.qdq[pair], name)
            noise = []
            for (exact,), (found,) in zip(run(fused, data), run(alone, data), strict=True):
                noise.append(
                    np.sum((exact - found).astype(np.float64) ** 2) / np.sum(exact.astype(np.float64) ** 2)
                )
            assert measured.values[name][pair] == pytest.approx(np.mean(noise), rel=1e-9)
