"""Number formats: one object each, found by name. A format defined elsewhere calls `register`."""

from __future__ import annotations

from .base import Format
from .bfloat16 import BFLOAT16
from .float8 import E4M3, E5M2
from .float32 import FLOAT32
from .granularity import Granularity, PerAxis, PerGroup, PerTensor, PerToken, parse_granularity
from .integer import INT2, INT3, INT4, INT8, INT12, INT16, UINT8, IntegerFormat
from .levels import LEVELS_1_3, LEVELS_1_4, LevelFormat
from .registry import (
    Pair,
    format_of,
    formats,
    holds_codes,
    holds_floats,
    integers_in,
    is_cast,
    parse_precision,
    precision_word,
    register,
)  # fmt: skip

__all__ = [
    "BFLOAT16",
    "E4M3",
    "E5M2",
    "FLOAT32",
    "INT2",
    "INT3",
    "INT4",
    "INT8",
    "INT12",
    "INT16",
    "LEVELS_1_3",
    "LEVELS_1_4",
    "UINT8",
    "Format",
    "Granularity",
    "IntegerFormat",
    "LevelFormat",
    "Pair",
    "PerAxis",
    "PerGroup",
    "PerTensor",
    "PerToken",
    "format_of",
    "formats",
    "holds_codes",
    "holds_floats",
    "integers_in",
    "is_cast",
    "parse_granularity",
    "parse_precision",
    "precision_word",
    "register",
]
