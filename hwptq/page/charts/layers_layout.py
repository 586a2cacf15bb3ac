"""Places for the nodes of a graph in rows, each below all that it reads (Sugiyama et al., 1981)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import networkx as nx

#: A node, or a bend of the edge (from, to) in a row: (from, to, row).
Spot = str | tuple[str, str, int]
_SWEEPS = 4


def layout(
    inputs: Mapping[str, Sequence[str]],
) -> tuple[dict[str, tuple[float, int]], list[list[tuple[float, int]]]]:
    """inputs: what each node reads. Gives the place (column, row) of each node, and each edge as the places
    that it goes through. Edges across several rows keep a column free in each."""
    rows = _rows(inputs)
    order, chains = _with_bends(inputs, rows)
    graph = nx.Graph()
    for chain in chains:
        nx.add_path(graph, chain)
    for sweep in range(_SWEEPS):
        _sort(order, graph, down=sweep % 2 == 0)
    widest = max(map(len, order))
    place = {
        spot: (i + (widest - len(row)) / 2, number)
        for number, row in enumerate(order)
        for i, spot in enumerate(row)
    }
    nodes = {name: place[name] for name in inputs}
    return nodes, [[place[spot] for spot in chain] for chain in chains]


def _rows(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The longest way to each node."""
    graph = nx.DiGraph((source, name) for name, sources in inputs.items() for source in sources)
    graph.add_nodes_from(inputs)
    return {name: row for row, found in enumerate(nx.topological_generations(graph)) for name in found}


def _with_bends(
    inputs: Mapping[str, Sequence[str]], rows: Mapping[str, int]
) -> tuple[list[list[Spot]], list[list[Spot]]]:
    """The spots of each row, and each edge as a chain of spots, one a row."""
    order: list[list[Spot]] = [[] for _ in range(max(rows.values()) + 1)]
    for name in inputs:
        order[rows[name]].append(name)
    chains: list[list[Spot]] = []
    for name, sources in inputs.items():
        for source in dict.fromkeys(sources):
            bends: list[Spot] = [(source, name, row) for row in range(rows[source] + 1, rows[name])]
            for row, bend in enumerate(bends, rows[source] + 1):
                order[row].append(bend)
            chains.append([source, *bends, name])
    return order, chains


def _sort(order: list[list[Spot]], graph: nx.Graph, down: bool) -> None:
    """Each row by the mean place of its neighbours in the row before it, in one direction."""
    numbers = range(1, len(order)) if down else range(len(order) - 2, -1, -1)
    for number in numbers:
        known = order[number - 1 if down else number + 1]
        place = {spot: i - len(known) / 2 for i, spot in enumerate(known)}

        def middle(spot: Spot, place: dict[Spot, float] = place) -> float:
            beside = [place[s] for s in graph.neighbors(spot) if s in place] if spot in graph else []
            return mean(beside) if beside else 0.0

        order[number].sort(key=middle)
