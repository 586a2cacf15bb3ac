"""Data that holds other values of an input than the one it is fixed to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hwptq.notices import Warning


def fixed_warnings(fixed: Mapping[str, float], files: Iterable[Any]) -> list[Warning]:
    """One for each fixed input of which an .npz holds other values; data of other kinds is not looked at."""
    found = []
    for path in {Path(file) for file in files if isinstance(file, str | Path) and str(file).endswith(".npz")}:
        with np.load(path, allow_pickle=False) as held:
            for name in sorted(fixed.keys() & set(held.files)):
                if np.any(held[name] != fixed[name]):
                    text = f"is fixed to {fixed[name]:g}, and {path} holds other values of it"
                    found.append(Warning("input", name, text))
    return found
