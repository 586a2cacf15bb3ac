"""What the command line shows: the report as a table, targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from hwptq.bitwidths.budget import BITS
from hwptq.notices import Warning
from hwptq.targets import Descriptor

_MOST_REASONS = 8  # in the table of the end
_console = Console()


def show_report(report: dict[str, Any], folder: Path) -> None:
    """The report of an output folder as a short table."""
    table = Table(
        title=escape(f"{report['model']} for {report['target']}"), title_justify="left", show_header=False
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in report_rows(report):
        table.add_row(*row)
    table.add_row("written to", escape(str(folder)))
    _console.print(table)


def report_rows(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The label and text of each row of the table."""
    cover, exact = report["coverage"], report["bit_exact"]
    total = cover["macs_total"]
    share = 100 * cover["macs_quantized"] / total if total else 0.0
    yield (
        "in integers",
        f"{share:.1f} % of {total / 1e6:.2f} M multiply-accumulates, {_nodes(cover['nodes_quantized'])}",
    )
    yield from _in_float(cover["nodes_float"])
    size = report["weight_bytes"]
    yield "weights", f"{size['quantized'] / 1e3:.1f} kB, {size['float32'] / 1e3:.1f} kB in float32"
    yield "activations", f"{report['arena_bytes'] / 1e3:.1f} kB at most, in a static arena{_bands(report)}"
    if report.get("regions"):
        used = (f"{r['name']} {r['used'] / 1e3:.1f} of {r['size'] / 1e3:.1f} kB" for r in report["regions"])
        yield "memory", ", ".join(used)
    if report.get("assignment"):
        yield "dtypes", _dtypes(report)
        yield from _tried(report["assignment"])
    if exact["samples"]:
        where = f"{exact['samples']} samples, {exact['values']} values, {escape(exact['executor'])}"
        verdict = "bit-exact" if not exact["mismatches"] else f"[red]{exact['mismatches']} mismatches[/]"
        yield "emitted code", f"{verdict}: {where}"
    else:
        yield "emitted code", f"[yellow]{escape(exact['executor'])}[/]"
    if report.get("caution"):
        yield "caution", f"[yellow]{escape(report['caution'])}[/]"
    for warning in (Warning(**row) for row in report.get("warnings", ())):
        if not warning.serious:  # those are in `caution`
            yield "warning", f"[yellow]{escape(str(warning))}[/]"
    yield _accuracy(report["accuracy"])
    yield from _kept(report.get("collapse") or {"outputs": (), "first": None})
    yield from _worst_layers(report["layers"])


def _bands(report: dict[str, Any]) -> str:
    """What is computed in bands so that activations take no more."""
    found = report.get("bands", ())
    parts = [f"{escape(b['first'])} … {escape(b['last'])} in {b['bands']} bands" for b in found]
    extra, total = sum(b["extra_macs"] for b in found), report["coverage"]["macs_total"]
    return f"; {', '.join(parts)}, {100 * extra / total:.1f} % more products" if parts else ""


def _dtypes(report: dict[str, Any]) -> str:
    """How many multiply-accumulates each pair of dtypes has, and what was asked for."""
    found, macs = report["assignment"], dict[str, int]()
    for row in found["layers"]:
        pair = f"{row['weight']} × {row['activation']}"
        macs[pair] = macs.get(pair, 0) + row["macs"]
    total = sum(macs.values()) or 1
    shares = ", ".join(f"{pair} {100 * n / total:.1f} %" for pair, n in macs.items())
    by_search = bool(found["tried"])  # whose budget nobody asked for
    asked = f"; budget {found['budget']}" if found["budget"] and not by_search else ""
    if found["bits"]["asked"] is not None:
        asked += f", {found['bits']['stored']:.3f} bits a weight stored"
    return f"{shares} of the multiply-accumulates (weight × activation){asked}"


def _tried(assignment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a search for --max-drop has run, the cheapest first, and by which samples."""
    if not (tried := assignment["tried"]):
        return
    cost = next(key for key in tried[0] if key != "drop")
    by = {"evaluation": "the evaluation data, as the accuracy below", "validation": "the validation data"}
    rows = sorted((t[cost], t["drop"]) for t in tried)
    shown = (f"{c / 1e3:,.0f} kB" if cost == "weights" else f"{c:.4g} {cost}" for c, _ in rows)
    lost = ", ".join(f"{c}: {drop:.2f}" for c, (_, drop) in zip(shown, rows, strict=True))
    yield (
        "tried",
        f"points lost by {len(rows)} choices on {by[assignment.get('tried_on') or 'evaluation']}: {lost}",
    )


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _in_float(nodes: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """A row for each operator and reason, the most frequent first."""
    alike: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        alike.setdefault((node["op"], node["reason"]), []).append(node["name"])
    ranked = sorted(alike.items(), key=lambda item: -len(item[1]))
    for (op, reason), names in ranked[:_MOST_REASONS]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield "in float", escape(f"{names[0]}{others} ({op}): {reason}")
    if rest := sum(len(names) for _, names in ranked[_MOST_REASONS:]):
        yield "in float", f"… and {rest} more, see report.json"


def _accuracy(accuracy: dict[str, Any]) -> tuple[str, str]:
    kind = "emitted" if accuracy.get("emitted") is not None else "reference"
    label = {"top1": "top-1", "sqnr_db": "SQNR"}.get(accuracy["metric"], accuracy["metric"])
    if accuracy["metric"] == "sqnr_db":
        return label, f"{accuracy.get(kind)} dB against float32, cosine {accuracy['cosine'][kind]} ({kind})"
    unit = " %" if accuracy["metric"] == "top1" else ""
    value, exact = accuracy[kind], accuracy["float32"]
    samples = accuracy["samples"]
    return label, f"{value:.2f}{unit} ({kind}), {exact:.2f}{unit} in float32, on {samples} samples"


def _kept(collapse: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is left of outputs that are not fine, and where that begins."""
    poor = [row for row in collapse["outputs"] if row["verdict"] not in (None, "fine")]
    if poor:
        rows = (f"{row['name']} {row['verdict']}, {100 * row['kept']:.0f} % kept" for row in poor)
        first = f"; first collapsed: {collapse['first']}" if collapse["first"] else ""
        yield "directions", escape(", ".join(rows) + first)


def _worst_layers(layers: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    noisy = sorted((row for row in layers if row["sqnr_db"] is not None), key=lambda row: row["sqnr_db"])
    if noisy:
        yield "noisiest", escape(", ".join(f"{row['name']} {row['sqnr_db']:.1f} dB" for row in noisy[:3]))


def show_assignment(found: dict[str, Any]) -> None:
    """The dtypes chosen for each layer, and what the model is predicted to cost."""
    measured = found["sensitivity"]
    table = Table(Column("layer", overflow="fold"), "weight × act.", "M MACs", "bytes")
    if measured:
        table.add_column(f"sensitivity, {measured}")
    table.add_column("kept", overflow="fold")
    for row in found["layers"]:
        by = f" by {row['group']}" if "group" in row else ""
        cells = [escape(row["name"]), f"{row['weight']}{by} × {row['activation']}"]
        cells += [f"{row['macs'] / 1e6:.2f}", f"{row['weight_bytes']:,.0f}"]
        if measured:
            value = row["sensitivity"].get(row.get("chosen", f"{row['activation']}, {row['weight']}"))
            cells.append("no choice" if value is None else f"{value:.3g}")
        table.add_row(*cells, row["kept"] or "")
    _console.print(table)
    for kind, cost in found["predicted"].items():
        _console.print(f"{kind:10} {_cost(kind, cost, found['highest_precision'][kind])}")


def _cost(kind: str, cost: float, highest: float) -> str:
    if kind.startswith("macs-"):
        return f"{100 * (1 - cost / highest) if highest else 0:.1f} % of the multiply-accumulates"
    if kind == BITS:
        return f"{cost:.3f} bits a weight, {highest:.3f} at the highest precision"
    unit = " B" if kind == "weights" else ""
    share = f", {cost / highest:.3f} of the highest precision" if highest else ""
    return f"{cost:,.0f}{unit}{share}"


def show_targets(targets: Iterable[Descriptor]) -> None:
    """A table of targets."""
    table = Table("name", "summary")
    for target in targets:
        table.add_row(target.name, target.summary)
    _console.print(table)


def target_row(target: Descriptor) -> dict[str, Any]:
    """A target's operators, kernels and programs, for JSON."""
    rules = [
        {"op": rule.op, "pairs": [list(pair) for pair in rule.pairs], "granularity": rule.granularity,
         "kernel": rule.kernel or None, "otherwise": rule.otherwise or None}
        for rule in target.ops
    ]  # fmt: skip
    tools = target.toolchain
    return {
        "name": target.name,
        "summary": target.summary,
        "operators": rules,
        "compiler": list(tools.compiler),
        "run": list(tools.run),
        "packages": list(tools.packages),
        "regions": [asdict(region) for region in target.memory.regions],
    }


def show_target(target: Descriptor) -> None:
    """The same for people."""
    row = target_row(target)
    _console.print(f"[bold]{target.name}[/]: {target.summary}")
    table = Table("operator", "activation, weight", "weight scales", "kernel")
    for rule in row["operators"]:
        pairs = " or ".join(f"{a}, {w}" for a, w in rule["pairs"])
        table.add_row(rule["op"], pairs, f"per {rule['granularity']}", rule["kernel"] or "portable")
    _console.print(table)
    _console.print(f"compiler   {' '.join(row['compiler'])}")
    _console.print(f"run        {' '.join(row['run']) or 'natively'}")
    if row["packages"]:
        _console.print(f"packages   {' '.join(row['packages'])}")
    for region in row["regions"]:
        first, size = f"{region['origin']:#010x}", f"{region['bytes'] / 2**10:g} KiB"
        _console.print(f"memory     {region['name']}: {size} from {first}, {', '.join(region['holds'])}")
