"""report.json and report.html: what was compiled, and what the emitted code was found to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwptq import __version__
from hwptq.backends.program import Program
from hwptq.ir.provenance import origins
from hwptq.json_text import finite, json_text
from hwptq.notices import Warning, caution
from hwptq.page.page import html_report
from hwptq.passes.graph.quantizable import equalization
from hwptq.pipeline.stages import Graphs
from hwptq.targets import Descriptor

from .accuracy import layer_rows
from .collapse import collapse, kept_row
from .coverage import bits, coverage, float_weight_bytes, integer_nodes, scalar_nodes
from .evidence import Evidence
from .examples import Example, example_row, picture
from .histograms import histograms
from .interface import interface
from .layer_details import with_details
from .memory_map import memory_map
from .model_graph import kernels_of, model_graph

SCHEMA = 1


def build_report(
    model: str,
    target: Descriptor,
    graphs: Graphs,
    program: Program,
    evidence: Evidence,
    seconds: dict[str, float],
    warnings: Sequence[Warning] = (),
) -> dict[str, Any]:
    """The report as plain data. `seconds` by stage."""
    named = origins(graphs.integer["main"])
    order = dict.fromkeys(named[var].label for var, _, _ in integer_nodes(graphs.integer))
    rows, layers = bits(graphs.integer), layer_rows(evidence.layers, list(order))
    measured = {row["name"] for row in layers}
    layers = [{**row, **kept_row(evidence.kept.get(row["name"]))} for row in layers]
    outputs = [tensor.name for tensor in program.outputs]
    boxes = evidence.score.custom.boxes if evidence.score.custom else None
    return {
        "schema": SCHEMA,
        "model": model,
        "target": target.name,
        "caution": caution(target.caution, warnings),
        "warnings": [warning.row() for warning in warnings],
        "hwptq": __version__,
        "coverage": {
            **coverage(graphs.float32, graphs.integer),
            "nodes_scalar": scalar_nodes(graphs.kernels),
        },
        "bits": rows,
        "weight_bytes": {"float32": float_weight_bytes(graphs.float32), "quantized": program.weight_bytes},
        "arena_bytes": program.arena_bytes,
        "regions": [asdict(region) for region in program.regions],
        "bit_exact": {
            "executor": evidence.executor,
            "samples": evidence.samples if evidence.values else 0,
            "values": evidence.values,
            "mismatches": evidence.mismatches,
            "first_mismatch": evidence.first_mismatch,
        },
        "accuracy": _accuracy(evidence, program),
        "collapse": collapse(evidence.kept, evidence.kept_outputs),
        "interface": interface(program, graphs.qdq),
        "layers": with_details(
            layers, model_graph(graphs.integer, measured), kernels_of(graphs.kernels, measured), rows
        ),
        "graph": [node.row() for node in model_graph(graphs.integer)],
        "histograms": histograms(graphs, evidence.seen),
        "memory": memory_map(program, graphs.kernels),
        "examples": [example_row(example, outputs, boxes) for example in evidence.examples],
        "observer": graphs.observer,
        "rounding": graphs.rounding,
        "equalization": [
            {"name": name, "reason": why} for name, why in equalization(graphs.float32["main"]).items()
        ],
        "seconds": seconds,
    }


def _accuracy(evidence: Evidence, program: Program) -> dict[str, Any]:
    """The `accuracy` object, its outputs with their names."""
    accuracy = evidence.score.report()
    for tensor, output in zip(program.outputs, accuracy.get("outputs", ()), strict=False):
        output["name"] = tensor.name
    return accuracy


def write_report(report: dict[str, Any], folder: Path, examples: Sequence[Example] = ()) -> None:
    """Write report.json and report.html; infinities become null, since JSON has none. examples: those of the
    report's `examples`, for their pictures."""
    (folder / "report.json").write_text(json_text(report) + "\n", encoding="utf-8")
    page = html_report(finite(report), [picture(example) for example in examples])
    (folder / "report.html").write_text(page, encoding="utf-8")
