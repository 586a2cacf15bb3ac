"""A diagnosis on the terminal: what is lost, where, and what mends it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

_LAYERS, _REMEDIES = 10, 8
_LEAST_RESTORED = 0.02
_NOTHING_DB = "exact"


def show_diagnosis(found: Mapping[str, Any], title: str) -> None:
    """The object of Diagnosis.row() as tables."""
    console = Console()
    metric = "" if found["metric"] == "sqnr_db" else str(found["metric"])
    console.print(f"[bold]{escape(title)}[/]: {found['samples']} samples")
    if metric:
        console.print(
            f"{metric}: float32 {found['float32']:.2f}, quantized {found['quantized']['metric']:.2f}"
        )
    console.print(_parts(found, metric))
    console.print(_layers(found, metric))
    _show_remedies(console, found, metric)


def _parts(found: Mapping[str, Any], metric: str) -> Table:
    table = Table(
        "lost by", "alone", "all else lost", title="What is lost at the outputs", title_justify="left"
    )
    for name, row in found["parts"].items():
        table.add_row(name, _effect(row["alone"], metric), _effect(row["all_but"], metric))
    table.add_row("all of these", _effect(found["simulated"], metric), "")
    table.add_row("in integers", _effect(found["quantized"], metric), "")
    if lowering := found["lowering"]:
        equal = f"{lowering['values']} values, {lowering['mismatches']} differ"
        table.add_row("emitted code", "nothing more", equal if lowering["values"] else lowering["executor"])
    return table


def _layers(found: Mapping[str, Any], metric: str) -> Table:
    table = Table(
        Column("node", overflow="fold"), "operator", "its own", "at the outputs", "all but it", "mostly by",
        title="Nodes that lose most, each quantized alone", title_justify="left",
    )  # fmt: skip
    for row in found["layers"][:_LAYERS]:
        alone = {"sqnr_db": row["output_sqnr_db"], "metric": row["metric"]}
        lost = {part: db for part, db in row["parts"].items() if db is not None}
        spared = "" if row["spared_output_sqnr_db"] is None else _decibel(row["spared_output_sqnr_db"])
        table.add_row(
            escape(row["name"]), row["op"], _decibel(row["isolated_sqnr_db"]), _effect(alone, metric), spared,
            min(lost, key=lambda part: lost[part]) if lost else "",
        )  # fmt: skip
    return table


def _show_remedies(console: Console, found: Mapping[str, Any], metric: str) -> None:
    """One after the other, each command on a line of its own, whole: to be pasted."""
    console.print("Remedies, the best first")
    helping = [row for row in found["remedies"] if (row["restored"] or 0.0) >= _LEAST_RESTORED]
    for number, row in enumerate(helping[:_REMEDIES], 1):
        seen = [f"{kind} {_effect(row[kind], metric)}" for kind in ("measured", "predicted") if row[kind]]
        work = f"; {100 * row['extra_work']:.0f} % more work" if row["extra_work"] else ""
        console.print(
            f"{number}. restores {100 * row['restored']:.0f} % ({', '.join(seen)}){work}: {row['why']}",
            markup=False, highlight=False,
        )  # fmt: skip
        if row["arguments"]:
            console.print(f"   {shlex.join(row['arguments'])}", style="bold", markup=False, soft_wrap=True)
    if not helping:
        console.print("none that was tried helps")


def _effect(row: Mapping[str, Any], metric: str) -> str:
    score = f", {row['metric']:.2f}" if metric and row["metric"] is not None else ""
    return f"{_decibel(row['sqnr_db'])}{score}"


def _decibel(value: float | None) -> str:
    return _NOTHING_DB if value is None else f"{value:.1f} dB"
