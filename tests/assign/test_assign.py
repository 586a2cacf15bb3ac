"""The choice of bit widths is the optimum: compared with trying every assignment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwptq.bitwidths.assign import Candidate, Choice, Infeasible, Layers, assign, total

PAIRS = (("int8", "int8"), ("int8", "int4"), ("int4", "int4"))
Groups = Sequence[frozenset[str]]


def every_choice(layers: Layers, groups: Groups) -> Iterator[Choice]:
    """All assignments in which the layers of a group agree on their activation."""
    for chosen in product(*layers.values()):
        choice = dict(zip(layers, chosen, strict=True))
        if all(len({choice[name].activation for name in group}) == 1 for group in groups):
            yield choice


def cost_of(choice: Choice) -> float:
    return total(choice.values(), "cost")


def sensitivity_of(choice: Choice) -> float:
    return total(choice.values(), "sensitivity")


@st.composite
def problems(draw: st.DrawFn) -> tuple[Layers, Groups, float]:
    """Up to 6 layers with 1 to 3 candidates, some tied, and a limit around what they cost."""
    names = [f"l{i}" for i in range(draw(st.integers(1, 6)))]
    numbers = st.integers(0, 50)
    layers = {}
    for name in names:
        pairs = [PAIRS[0], *draw(st.lists(st.sampled_from(PAIRS[1:]), unique=True))]
        layers[name] = [Candidate(*pair, draw(numbers), draw(numbers)) for pair in pairs]
    graph = nx.Graph(draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=3)))
    groups = [frozenset(g) for g in nx.connected_components(graph)]
    return layers, groups, draw(st.integers(0, 50 * len(names)))


@settings(max_examples=100, deadline=None)
@given(problems())
def test_equals_the_best_of_all_assignments(problem: tuple[Layers, Groups, float]) -> None:
    layers, groups, limit = problem
    every = list(every_choice(layers, groups))
    fitting = [sensitivity_of(c) for c in every if cost_of(c) <= limit]
    if not fitting:
        with pytest.raises(Infeasible) as caught:
            assign(layers, groups, limit)
        assert caught.value.smallest == min(map(cost_of, every))
        return
    choice = assign(layers, groups, limit)
    assert choice in every
    assert cost_of(choice) <= limit
    assert sensitivity_of(choice) == min(fitting)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_real_costs_and_sensitivities_of_any_magnitude(data: st.DataObject) -> None:
    """Bytes of millions, noise powers from 1e-7 to 1: as measured ones are."""
    many, few = st.integers(100_000, 1_000_000), st.integers(50_000, 100_000)
    quiet, loud = st.floats(1e-7, 1e-3), st.floats(1e-3, 1.0)
    layers = {
        f"l{i}": [
            Candidate("int8", "int8", data.draw(many), data.draw(quiet)),
            Candidate("int8", "int4", data.draw(few), data.draw(loud)),
        ]
        for i in range(7)
    }
    every = list(every_choice(layers, ()))
    limit = data.draw(st.integers(int(min(map(cost_of, every))), int(max(map(cost_of, every)))))
    choice = assign(layers, (), limit)
    assert cost_of(choice) <= limit
    best = min(sensitivity_of(c) for c in every if cost_of(c) <= limit)
    assert sensitivity_of(choice) <= best * (1 + 1e-9) + 1e-9  # the resolution that assign() promises


def test_the_limit_may_be_met_exactly() -> None:
    layers = {
        f"l{i}": [Candidate("int8", "int8", 3_000_001.0, 1), Candidate("int8", "int4", 1.0, 2)] for i in "abc"
    }
    assert cost_of(assign(layers, (), 6_000_003)) == 6_000_003
    assert cost_of(assign(layers, (), 6_000_002)) == 3_000_003


def test_a_limit_that_many_choices_miss_by_a_hair() -> None:
    """All choices of 8 layers of 16 cost the same, a little more than the limit."""
    candidates = [Candidate("int8", "int8", 1.0, 0), Candidate("int8", "int4", 0.0, 1)]
    layers = {f"l{i}": candidates for i in range(16)}
    choice = assign(layers, (), 8 - 1e-9)
    assert cost_of(choice) == 7.0


def test_a_dtype_that_one_of_a_group_lacks_is_open_to_none() -> None:
    wide, narrow = Candidate("int8", "int8", 2, 0), Candidate("int4", "int4", 1, 1)
    layers = {"a": [wide, narrow], "b": [wide], "c": [wide, narrow]}
    choice = assign(layers, [{"a", "b"}], 5)
    assert {name: c.activation for name, c in choice.items()} == {"a": "int8", "b": "int8", "c": "int4"}
    with pytest.raises(Infeasible):
        assign(layers, [{"a", "b"}], 4)


def test_nothing_in_common() -> None:
    layers = {"a": [Candidate("int8", "int8", 1)], "b": [Candidate("int4", "int4", 1)]}
    with pytest.raises(ValueError, match="no activation dtype in common"):
        assign(layers, [{"a", "b"}])


def test_no_layers() -> None:
    assert assign({}, (), 1.0) == {}
