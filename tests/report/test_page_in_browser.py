"""The page in a browser: nothing is complained about, and nothing is wider than the screen."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_html_report import REPORT

from hwptq.page.page import html_report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
LONG = "a/very/long/name/of/a/layer/as/exporters/write/them/" * 3

FULL = copy.deepcopy(REPORT) | {
    "warnings": [{"kind": "sqnr", "where": LONG, "text": "low", "serious": True}],
    "caution": "low",
    "asked": {
        "command": f"hwptq compile {'x' * 300}.onnx", "date": "2026-01-02T03:04:05+00:00",
        "model": {"from": LONG, "sha256": "0" * 64}, "target": "some-device", "options": {"samples": "3"},
        "data": {"calibration": {"from": "a list", "sha256": None}}, "versions": {"hwptq": "1.0"},
        "machine": "x86_64",
    },
    "graph": [
        {"name": "x", "node": "x", "operator": "input", "dtype": "float32", "inputs": [], "quantized": False},
        *(
            {"name": f"{LONG}{i}", "node": "n", "operator": "conv2d", "dtype": "int8", "quantized": True,
             "inputs": ["x"] if i < 9 else [f"{LONG}{k}" for k in range(9)]}
            for i in range(11)
        ),
    ],
    "histograms": [
        {"name": "conv1", "kind": kind, "low": -1.0, "high": 2.0, "counts": [1, 0, 10000, 7],
         "range": [-1.0, 1.5], "narrowest_range": [-0.5, 0.5]}
        for kind in ("activation", "weight")
    ],
    "memory": {
        "arena_bytes": 4700, "calls": [{"name": LONG, "kernel": "portable", "function": "f"}] * 3,
        "tensors": [{"name": LONG, "first": 64 * i, "bytes": 64, "born": i, "last": i + 1} for i in range(3)],
    },
    "examples": [
        {"label": 3, "kind": "emitted", "sqnr_db": {LONG: 30.0},
         "top": {"float32": [[3, 8.1], [1, 0.5]], "emitted": [[1, 8.0], [3, 7.9]]}}
    ] * 2,
    "assignment": {"budget": None, "tried": [{"weights": 1e3 * i, "drop": 1.0 / i} for i in (1, 2, 3)]},
}  # fmt: skip


def _opened(page: Path, width: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """What a browser makes of a page that is looked at through a frame of a width, in px."""
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--hide-scrollbars",
        f"--user-data-dir={page.parent / 'profile'}", "--allow-file-access-from-files",
        *flags, "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def _measured(folder: Path, text: str, width: int, *flags: str) -> dict[str, str]:
    """Measures of the page, as a frame around it sees it: a window can't be as narrow as a phone."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    (folder / "frame.html").write_text(
        f"""<iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe><script>
        onload = () => {{
          const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
          const found = {{width: root.scrollWidth, shown: root.clientWidth,
                          paper: getComputedStyle(page.body).backgroundColor,
                          fill: getComputedStyle(page.querySelector("svg path[aria-label]")).fill}};
          for (const key in found) document.body.dataset[key] = found[key];
        }}</script>""",
        encoding="utf-8",
    )
    done = _opened(folder / "frame.html", width, *flags)
    assert "CONSOLE" not in done.stderr
    return dict(re.findall(r'data-(\w+)="([^"]*)"', done.stdout))


DARK = ("--blink-settings=preferredColorScheme=0",)
LIGHT = ("--blink-settings=preferredColorScheme=1",)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("flags", "paper"), [(LIGHT, "rgb(255, 255, 255)"), (DARK, "rgb(20, 24, 31)")])
def test_fits_the_screen(tmp_path: Path, width: int, flags: tuple[str, ...], paper: str) -> None:
    found = _measured(tmp_path, html_report(FULL), width, *flags)
    assert found["width"] == found["shown"] == str(width)
    assert found["paper"] == paper
    assert found["fill"].startswith("rgb") or found["fill"] == "none"


@pytest.mark.parametrize(("theme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 31)")])
def test_the_reader_chooses_the_colours(tmp_path: Path, theme: str, paper: str) -> None:
    text = html_report(FULL)
    for other, mark in (("auto", ""), (theme, " checked")):
        text = re.sub(rf'(id="theme-{other}")( checked)?', rf"\1{mark}", text)
    other_way = DARK if theme == "light" else LIGHT
    assert _measured(tmp_path, text, 1280, *other_way)["paper"] == paper


def test_is_one_file_without_scripts() -> None:
    text = html_report(FULL)
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6
