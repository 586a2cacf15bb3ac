"""hwptq: a hardware-aware post-training-quantization compiler on Apache TVM."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout, passes/ and targets/ lie beside this package; an installed wheel holds them inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file():
    __path__.append(str(_root))

__version__ = "0.1.0"
__all__ = [
    "CalibrationStats",
    "CompiledModel",
    "Options",
    "__version__",
    "calibrate",
    "compile",
    "load",
    "measure_sensitivity",
    "parse_budget",
    "plan",
]

if TYPE_CHECKING:
    from hwptq.search.sensitivity import measure_sensitivity

    from .artifact import CompiledModel, load
    from .bitwidths.budget import parse_budget
    from .calibration import CalibrationStats, calibrate
    from .flow import compile, plan
    from .options import Options

_HOMES = {
    "CalibrationStats": "calibration",
    "CompiledModel": "artifact",
    "Options": "options",
    "calibrate": "calibration",
    "compile": "flow",
    "load": "artifact",
    "measure_sensitivity": "search.sensitivity",
    "parse_budget": "bitwidths.budget",
    "plan": "flow",
}


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used: TVM takes a second to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hwptq' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"hwptq.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
