"""Where the engine of charts can't start, the report says so in their places, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
from hwptq.page.charts.vega import svg
print(svg({"mark": "bar", "data": {"values": []}}, "layers <b>"))
"""


def test_without_room_for_its_addresses_a_line_stands_for_the_chart() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert "layers &lt;b&gt;: not drawn, the address space is limited" in done.stdout


def test_with_room_it_is_drawn() -> None:
    code = SCRIPT.split("resource.setrlimit")[0] + SCRIPT[SCRIPT.index("from hwptq") :]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith('<svg role="img" aria-label="layers &lt;b&gt;"')
