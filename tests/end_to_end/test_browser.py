"""The page of examples/ that classifies what is drawn: the demo's WebAssembly in headless Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from hwptq.golden_check import golden_samples

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PAGE = Path(__file__).parents[2] / "examples" / "digits" / "browser"
#: Opens the page in a frame, draws digits with the mouse, then runs stored samples through its classifier.
DRIVER = """<!doctype html><iframe src="index.html?module=digits" width="700" height="600"></iframe>
<pre id="found"></pre><script type="module">
import {{ Classifier }} from "./classifier.mjs";
const given = {given}, frame = document.querySelector("iframe");
const until = async (ready) => {{ while (!ready()) await new Promise((go) => setTimeout(go, 10)); }};
await until(() => frame.contentDocument?.getElementById("note")?.textContent === "ready");
const page = frame.contentDocument, pad = page.getElementById("pad"), box = pad.getBoundingClientRect();
const fire = (kind, [x, y]) => pad.dispatchEvent(new frame.contentWindow.PointerEvent(
    kind, {{ bubbles: true, clientX: box.left + pad.clientLeft + x, clientY: box.top + pad.clientTop + y }}));
const digits = [];
for (const strokes of given.drawings) {{
    for (const [first, ...rest] of strokes) {{
        fire("pointerdown", first);
        for (const point of rest) fire("pointermove", point);
        page.getElementById("note").textContent = "";
        fire("pointerup", first);
        await until(() => page.getElementById("note").textContent);
    }}
    digits.push(page.getElementById("digit").textContent);
    page.getElementById("clear").click();
    digits.push(page.getElementById("digit").textContent);
}}
const classifier = await Classifier.load("digits"), outputs = [];
for (const sample of given.samples) {{
    const logits = await classifier.run(new Float32Array(sample));
    outputs.push([...new Uint32Array(logits.buffer)]);
}}
document.getElementById("found").textContent = JSON.stringify({{ digits, outputs }});
</script>"""


def ellipse(x: float, y: float, width: float, height: float) -> list[list[float]]:
    angles = np.linspace(0, 2 * np.pi, 40)
    return [[x + width * float(np.sin(a)), y - height * float(np.cos(a))] for a in angles]


#: Strokes of a digit each.
DRAWINGS = {
    "0": [ellipse(128, 128, 55, 90)],
    "1": [[[100, 80], [140, 40], [140, 216]]],
}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_digits_drawn_with_the_mouse(
    runnable: Callable[[str], str], demo: Callable[[str], Any], tmp_path: Path
) -> None:
    if BROWSER is None:
        pytest.skip("no chromium here: apt-get install chromium")
    model = demo(runnable("wasm32-simd"))
    golden = list(golden_samples(model))[:8]
    samples = [inputs["input"].ravel().tolist() for inputs, _ in golden]
    given = json.dumps({"drawings": list(DRAWINGS.values()), "samples": samples})
    site = shutil.copytree(PAGE, tmp_path / "site")
    shutil.copy(Path(model.program.command[-1]).with_suffix(""), site / "digits")
    (site / "driver.html").write_text(DRIVER.format(given=given), encoding="utf-8")
    with served(site) as address:
        command = [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=60000",
            "--dump-dom", f"{address}/driver.html",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, done.stderr
    assert text[1], done.stderr[-2000:]
    found = json.loads(html.unescape(text[1]))
    assert found["digits"] == [word for digit in DRAWINGS for word in (digit, "")]
    for got, (_, outputs) in zip(found["outputs"], golden, strict=True):
        np.testing.assert_array_equal(np.array(got, np.uint32), outputs["logits"].ravel().view(np.uint32))
