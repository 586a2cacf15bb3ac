"""Where the command begins: what a signal means is said before anything that takes time is imported."""

from __future__ import annotations

import os
import signal
import sys

from .ending_signals import ENDING

TYPE_CHECKING = False  # as in `typing`, which takes time
if TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the command line, and exit as it does."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as it is with nohup
            signal.signal(number, _end)

    from .supervise import run

    sys.exit(run())


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"hwptq: {ENDING[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)
