"""JSON as a standard has it: no infinity and no NaN, which become null."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any) -> str:
    """The text of a document, two spaces an indent. An SQNR without noise, infinite, is null."""
    return json.dumps(finite(value), indent=2, allow_nan=False)


def finite(value: Any) -> Any:
    """The same value with null for what is no finite number."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
