"""What a compilation has made and found out, and how it becomes the files of an output folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hwptq.data.preprocess import Preprocess
from hwptq.data.preprocess_text import preprocess_text
from hwptq.frontends.model import ImportCheck, Model
from hwptq.passes.stored_bytes import layer_bytes
from hwptq.report.evidence import Evidence
from hwptq.report.golden import joined, write_golden
from hwptq.report.profile import Profile, add_profile
from hwptq.report.report import build_report, write_report
from hwptq.search.bands import Banded
from hwptq.search.choose import BitWidths
from hwptq.search.group_widths import GroupWidths
from hwptq.tuning.tune import Tuning

from .backends.program import Program
from .backends.static_c.taps import tap_names
from .metadata import write_metadata
from .notices import Warning
from .output_folder import PREPROCESS
from .pipeline.stages import Graphs
from .qdq_export import save_qdq
from .targets import Descriptor


@dataclass(frozen=True)
class Built:
    """A model's graphs and its program, and how both were chosen: None where nobody wished for a choice."""

    graphs: Graphs
    program: Program
    widths: BitWidths | GroupWidths | None
    tuning: Tuning | None
    warnings: Sequence[Warning]
    bands: Sequence[Banded] = ()


@dataclass(frozen=True)
class Outcome:
    """A compiled model. alone: rows of `layers` by name; asked: the object of the report."""

    model: Model
    target: Descriptor
    built: Built
    evidence: Evidence
    checked: ImportCheck
    warnings: Sequence[Warning]
    alone: Mapping[str, dict[str, Any]]
    asked: dict[str, Any]
    preprocess: Preprocess | None
    profile: Profile | None = None


def write(folder: Path, found: Outcome, seconds: dict[str, float]) -> None:
    """Write all that belongs beside the program; seconds: by stage, for the report."""
    write_golden(
        folder / "golden.npz", {name: joined(parts) for name, parts in found.evidence.golden.items()}
    )
    if found.preprocess is not None:
        text = preprocess_text(found.preprocess)
        (folder / PREPROCESS).write_text(text, encoding="utf-8")
    report = _report(folder, found, seconds)
    write_report(report, folder, found.evidence.examples)
    bits = found.built.widths.bits() if found.built.widths else None
    write_metadata(folder, found.model.name, found.target.name, found.built.program, bits)


def _report(folder: Path, found: Outcome, seconds: dict[str, float]) -> dict[str, Any]:
    """The report, with model.qdq.onnx written, which it tells of."""
    model, built, graphs, program = found.model, found.built, found.built.graphs, found.built.program
    report = build_report(
        model.name, found.target, graphs, program, found.evidence, seconds, found.warnings
    )  # fmt: skip
    packed = layer_bytes(graphs.integer, found.target)
    for row in report["bits"]:
        row["packed_bytes"] = packed.get(row["name"], 0)
    for row in report["layers"]:
        row |= found.alone.get(row["name"], {})
    report["assignment"] = built.widths.report(program.weight_bytes) if built.widths else None
    report["import_check"] = found.checked.row()
    report["tuning"] = built.tuning.report() if built.tuning else None
    report["bands"] = [asdict(row) for row in built.bands]
    report["qdq_onnx"] = save_qdq(graphs.qdq, model.outputs, model.name, folder / "model.qdq.onnx")
    report["tensors"] = tap_names(graphs.kernels)
    report["asked"] = found.asked
    add_profile(report, found.profile)
    return report
