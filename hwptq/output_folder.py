"""The output folder: written aside, then put in place as a whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError

#: The file that says that a folder is the output of hwptq.
METADATA = "metadata.json"


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """An empty folder beside `output`, which takes its place when the block ends without an exception.

    Raises InputError where that can't be done: no permission, or `output` holds something else.
    """
    output = output.absolute()
    if output.exists() and not _replaceable(output):
        raise InputError(f"{output}: exists and is no output of hwptq; give another --output, or remove it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise InputError(f"{output}: can't be written: {error.strerror}; give another --output") from error
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp makes it private
        _put_in_place(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replaceable(output: Path) -> bool:
    return output.is_dir() and ((output / METADATA).is_file() or not any(output.iterdir()))


def _put_in_place(aside: Path, output: Path) -> None:
    old = aside.with_name(f"{aside.name}-old")
    try:
        if output.exists():
            output.rename(old)
        aside.rename(output)
    except OSError as error:
        if old.exists() and not output.exists():
            old.rename(output)
        raise InputError(f"{output}: can't be replaced: {error.strerror}") from error
    shutil.rmtree(old, ignore_errors=True)
