"""hwptq: a hardware-aware post-training-quantization compiler on Apache TVM.

The names below are the public ones; docs/api.md says what of them is stable.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

# In a checkout, passes/ and targets/ lie beside this package; an installed wheel holds them inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file():
    __path__.append(str(_root))

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .artifact import CompiledModel as CompiledModel
    from .artifact import load as load
    from .bitwidths.budget import Budget as Budget
    from .bitwidths.budget import parse_budget as parse_budget
    from .calibration import CalibrationStats as CalibrationStats
    from .calibration import calibrate as calibrate
    from .data.dataset import Dataset as Dataset
    from .data.dataset import Sample as Sample
    from .data.dataset import from_batches as from_batches
    from .data.dataset import open_dataset as open_dataset
    from .data.preprocess import Preprocess as Preprocess
    from .data.preprocess import load_preprocess as load_preprocess
    from .diagnosis.diagnosis import Diagnosis as Diagnosis
    from .diagnosis.repair import Repair as Repair
    from .errors import AccuracyError as AccuracyError
    from .errors import BudgetError as BudgetError
    from .errors import HwptqError as HwptqError
    from .errors import InputError as InputError
    from .errors import MismatchError as MismatchError
    from .errors import StrictError as StrictError
    from .errors import UnsupportedError as UnsupportedError
    from .evaluate.interpret import Interpreter as Interpreter
    from .flow import compile as compile
    from .forecast import diagnose as diagnose
    from .forecast import plan as plan
    from .forecast import repair as repair
    from .notices import Warning as Warning
    from .options import Metric as Metric
    from .options import Options as Options
    from .progress import Progress as Progress
    from .recipe import RECIPES as RECIPES
    from .recipe import Recipe as Recipe
    from .report.typed import Report as Report
    from .search.sensitivity import measure_sensitivity as measure_sensitivity
    from .targets import Descriptor as Descriptor
    from .targets import load_target as load_target
    from .targets import target_names as target_names

#: Module -> the public names that it defines.
_PUBLIC = {
    "artifact": ("CompiledModel", "load"),
    "bitwidths.budget": ("Budget", "parse_budget"),
    "calibration": ("CalibrationStats", "calibrate"),
    "data.dataset": ("Dataset", "Sample", "from_batches", "open_dataset"),
    "data.preprocess": ("Preprocess", "load_preprocess"),
    "errors": (
        "AccuracyError", "BudgetError", "HwptqError", "InputError", "MismatchError", "StrictError",
        "UnsupportedError",
    ),
    "evaluate.interpret": ("Interpreter",),
    "diagnosis.diagnosis": ("Diagnosis",),
    "diagnosis.repair": ("Repair",),
    "flow": ("compile",),
    "forecast": ("diagnose", "plan", "repair"),
    "notices": ("Warning",),
    "options": ("Metric", "Options"),
    "progress": ("Progress",),
    "recipe": ("RECIPES", "Recipe"),
    "report.typed": ("Report",),
    "search.sensitivity": ("measure_sensitivity",),
    "targets": ("Descriptor", "load_target", "target_names"),
}  # fmt: skip
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: TVM takes a second to load."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
