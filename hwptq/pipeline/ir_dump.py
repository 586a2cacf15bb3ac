"""--dump-ir: the module after each step of a compilation, to read."""

from __future__ import annotations

import re
from pathlib import Path

import tvm

from hwptq.errors import InputError

_HEADER = "# hwptq: after"
_DUMPS = "[0-9][0-9]-*.py"


class IrDump:
    """Writes modules to NN-STEP.py in `folder` as TVMScript, without the values of constants; without a
    folder it does nothing.

    Dumps of an earlier compilation are removed first, other files left alone. Raises InputError where the
    folder can't be written.
    """

    def __init__(self, folder: Path | None = None):
        self._folder, self._count = folder, 0
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob(_DUMPS):
                if path.read_text(encoding="utf-8").startswith(_HEADER):
                    path.unlink()
        except OSError as error:
            raise InputError(f"--dump-ir {folder}: can't be written: {error.strerror}") from error

    def __call__(self, step: str, module: tvm.IRModule) -> None:
        """Write `module`, as it is after `step`."""
        if self._folder is None:
            return
        word = re.sub(r"\W+", "-", step)
        path = self._folder / f"{self._count:02}-{word}.py"
        path.write_text(f"{_HEADER} {step}\n{module.script()}\n", encoding="utf-8")
        self._count += 1
