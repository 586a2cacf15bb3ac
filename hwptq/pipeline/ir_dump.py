"""--dump-ir: the module after each step of a compilation, to read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tvm

from hwptq.errors import InputError

_HEADER = "# hwptq: after"
_DUMPS = "[0-9][0-9]-*.py"


class IrDump:
    """Writes modules to NN-STEP.py in `folder` as TVMScript, without the values of constants; without a
    folder it does nothing.

    The folder is made, and dumps of an earlier compilation are removed, with the first one: options that are
    refused before leave nothing behind. Other files are left alone. Raises InputError where it can't be
    written.
    """

    def __init__(self, folder: Path | None = None):
        self._folder, self._count = folder, 0
        if folder is None:
            return
        there = next(place for place in [folder, *folder.absolute().parents] if place.exists())
        if not there.is_dir():
            raise _unwritable(folder, f"{there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise _unwritable(folder, "permission denied")

    def __call__(self, step: str, module: tvm.IRModule) -> None:
        """Write `module`, as it is after `step`."""
        if self._folder is None:
            return
        if not self._count:
            self._begin(self._folder)
        word = re.sub(r"\W+", "-", step)
        path = self._folder / f"{self._count:02}-{word}.py"
        path.write_text(f"{_HEADER} {step}\n{module.script()}\n", encoding="utf-8")
        self._count += 1

    def _begin(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(_DUMPS):
                if path.read_text(encoding="utf-8").startswith(_HEADER):
                    path.unlink()
        except OSError as error:
            raise _unwritable(folder, str(error.strerror)) from error


def _unwritable(folder: Path, why: str) -> InputError:
    return InputError(f"--dump-ir {folder}: can't be written: {why}")
