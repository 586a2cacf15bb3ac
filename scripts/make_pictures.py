"""python scripts/make_pictures.py: draws the report of the demo to docs/pictures/report.svg."""

from __future__ import annotations

import io
import json
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import hwptq
from hwptq.cli.terminal import report_rows

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
TARGET = "x86-64-avx2"


def draw(report: dict) -> str:
    """The table of a report, and a bar for the SQNR of each layer, as SVG that needs no font of the web."""
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for row in report_rows(report):
        table.add_row(*row)
    console.print(table)
    console.print("\n  [bold]SQNR by layer, emitted code[/]")
    for layer in report["layers"]:
        if layer["sqnr_db"] is not None:
            bar = "█" * round(layer["sqnr_db"] / 2)
            console.print(
                Text.assemble(f"  {layer['name']:<24}", (bar, "blue"), f" {layer['sqnr_db']:.1f} dB")
            )
    svg = console.export_svg(
        title=f"hwptq compile digits.onnx --target {report['target']} …", unique_id="report"
    )
    return re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Compile for a target that runs here, so that the figures are of emitted code."""
    with tempfile.TemporaryDirectory() as folder:
        files = {f"{kind}_data": DIGITS / f"{kind}.npz" for kind in ("calibration", "evaluation")}
        options = {"target": TARGET, "output": folder, "preprocess": DIGITS / "preprocess.toml", **files}
        hwptq.compile(DIGITS / "digits.onnx", **options)
        report = json.loads((Path(folder) / "report.json").read_text(encoding="utf-8"))
    place = ROOT / "docs" / "pictures" / "report.svg"
    place.parent.mkdir(exist_ok=True)
    place.write_text(draw(report), encoding="utf-8")


if __name__ == "__main__":
    main()
