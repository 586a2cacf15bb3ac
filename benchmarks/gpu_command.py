"""The command line of a benchmark that is built on one machine and run on another, which has the GPU."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Arguments `what` (build or run) and `folder`, below the module's description."""
    command = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    command.add_argument("what", choices=("build", "run"))
    command.add_argument("folder", type=_made)
    return command


def _made(name: str) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
