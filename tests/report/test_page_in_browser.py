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

PIXEL = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
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
    ] * 2 + [
        {"label": None, "kind": "emitted", "sqnr_db": {LONG: 30.0}, "size": [80, 100],
         "boxes": {kind: [[7, 0.9, 5.0, 4.0, 60.0, 70.0], [1, 0.4, 50.0, 1.0, 99.0, 79.0]]
                   for kind in ("float32", "emitted")}}
    ],
    "assignment": {"budget": None, "tried": [{"weights": 1e3 * i, "drop": 1.0 / i} for i in (1, 2, 3)]},
}  # fmt: skip


#: Looks at the page through frames, since a window can't be as narrow as a phone, and chooses each theme.
FRAMES = """<body>{frames}<script>onload = () => {{
  for (const frame of document.querySelectorAll("iframe")) {{
    const page = frame.contentDocument, root = page.documentElement;
    for (const theme of ["auto", "light", "dark"]) {{
      page.getElementById("theme-" + theme).checked = true;
      const found = document.createElement("i");
      found.textContent = [theme, root.scrollWidth, root.clientWidth,
                           getComputedStyle(page.body).backgroundColor].join("; ");
      document.body.append(found);
    }}
  }}
}}</script></body>"""
PAPER = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 31)"}


@pytest.mark.parametrize(("scheme", "setting"), [("light", 1), ("dark", 0)])
def test_fits_the_screen_in_any_colours(tmp_path: Path, scheme: str, setting: int) -> None:
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    widths = (1280, 390)
    (tmp_path / "report.html").write_text(html_report(FULL, [PIXEL] * 3), encoding="utf-8")
    frames = "".join(f'<iframe src="report.html" style="border:0;width:{w}px"></iframe>' for w in widths)
    (tmp_path / "frames.html").write_text(FRAMES.format(frames=frames), encoding="utf-8")
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        "--hide-scrollbars", f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
        f"--blink-settings=preferredColorScheme={setting}", "--dump-dom",
        (tmp_path / "frames.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    assert "CONSOLE" not in done.stderr
    found = [text.split("; ") for text in re.findall(r"<i>(.*?)</i>", done.stdout)]
    wanted = {"auto": PAPER[scheme], **PAPER}
    assert found == [[theme, str(w), str(w), paper] for w in widths for theme, paper in wanted.items()]


def test_is_one_file_without_scripts() -> None:
    text = html_report(FULL)
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert not re.search(r"url\((?!#)", text)
    assert len(text) < 3e6
