"""What the process of a command tells the one that waits for it (supervise.py), and what its user hears."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Session:
    """A run of the command; without a pipe and a terminal, as in a test, nobody listens."""

    messages: int = -1  # file descriptor of the pipe
    terminal: int = -1  # file descriptor of standard error, where the process was given it

    verbose: bool = False  # libraries may print, and faults of ours come with their traceback

    def begin(self, output: Path | None, verbose: bool) -> None:
        """An output folder, if any, is about to be written: should this process be killed, it is tidied."""
        self.verbose = verbose
        if verbose:
            self._show_libraries()
        if output is not None:
            self._send({"output": os.path.realpath(output)})

    def ended(self) -> None:
        """The exit code that follows is one that the command chose."""
        self._send({"ended": True})

    def _send(self, message: dict[str, object]) -> None:
        if self.messages >= 0:
            os.write(self.messages, json.dumps(message).encode() + b"\n")

    def _show_libraries(self) -> None:
        """Let what libraries print reach the user."""
        warnings.simplefilter("default")
        logging.disable(logging.NOTSET)
        if self.terminal >= 0:
            os.dup2(self.terminal, 2)


def quiet_libraries(log: int) -> int:
    """Send what libraries print to `log`; sys.stderr still is the user's. Returns its file descriptor."""
    terminal = os.dup(2)
    os.dup2(log, 2)
    sys.stderr = os.fdopen(terminal, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return terminal
