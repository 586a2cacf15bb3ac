"""Files of the user's are not read where they are devices, which may never end."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path

from .errors import InputError


def check_no_device(path: Path) -> Path:
    """`path`, which may also be missing. Raises InputError where it is a device, such as /dev/zero."""
    with suppress(OSError, ValueError):
        mode = path.stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise InputError(f"{path}: is a device; give a file")
    return path
