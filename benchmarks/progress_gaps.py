"""The longest time for which a command shows no change, on a terminal.

    python benchmarks/progress_gaps.py hwptq compile model.onnx --target …

Runs the command in a pseudo-terminal, and looks at what it draws: a line that is drawn again as it was is no
change.
"""

from __future__ import annotations

import os
import pty
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass(frozen=True)
class Gap:
    """Seconds without a change, and what was shown meanwhile."""

    seconds: float
    shown: str


def gaps(command: Sequence[str]) -> tuple[int, list[Gap]]:
    """The exit status of a command, and all times between changes, from its start to its end."""
    child, terminal = pty.fork()
    if not child:
        os.environ["COLUMNS"] = "120"
        os.execvp(command[0], list(command))
    found, last, shown = [], time.perf_counter(), ""
    while True:
        try:
            said = os.read(terminal, 1 << 16)
        except OSError:  # the other end is closed
            said = b""
        text = _last_frame(said)
        if not said or text not in ("", shown):
            now = time.perf_counter()
            found.append(Gap(now - last, shown))
            last, shown = now, text
        if not said:
            break
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), found


def _last_frame(said: bytes) -> str:
    """What is left of some output when its control sequences are gone."""
    return _CONTROL.sub(b"", said).decode(errors="replace").strip()


def main(command: Sequence[str]) -> None:
    status, found = gaps(command)
    longest = sorted(found, key=lambda gap: -gap.seconds)[:3]
    print(f"exit status {status}, {sum(gap.seconds for gap in found):.1f} s, {len(found)} changes")
    for gap in longest:
        line = gap.shown.splitlines()[-1] if gap.shown else "nothing yet"
        print(f"{gap.seconds:5.2f} s without a change, at: {line.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
