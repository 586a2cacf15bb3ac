"""What users name as package.module:name: their functions that yield data, or score outputs."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def user_object(spec: str) -> Any:
    """What `package.module:name` names, also in the current folder. Raises what the import raises."""
    module, _, name = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # `hwptq` as a command doesn't look there by itself
    return getattr(importlib.import_module(module), name)
