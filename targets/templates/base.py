"""What every table of a kernel template is, and which ones there are."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import ClassVar

from hwptq.targets.fields.problems import Problems

from .intrinsics import Call

_TABLES: dict[str, type[Kernel]] = {}


class Kernel:
    """A [kernel.NAME] table: the data that fills one template. Its subclasses are frozen dataclasses.

    To define a subclass adds its template to the format; hwptq/kernels/template.py is what makes code of it.
    """

    #: As the file names the template.
    template: ClassVar[str]
    #: The kinds of operators whose [[op]] tables may name such a kernel.
    serves: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        """Register the template. Raises ValueError where another class has taken its name."""
        if _TABLES.setdefault(cls.template, cls) is not cls:
            raise ValueError(f"there are two templates called {cls.template}")

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        """Note what does not fit together in the table at `path`; each field is within its own limits.

        `registers`: those that [assembly] has for inner loops, None where it says nothing valid.
        """

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        """The LLVM intrinsics that its code calls, with the operand types that follow from its fields."""
        return ()

    def instructions(self) -> dict[str, str]:
        """Key -> assembly code of the table that enters the program; "" where there is none."""
        return {}

    def int4_group(self) -> int:
        """Input channels of the groups of int4 weights, each with a factor, that it unpacks; 0 = none."""
        return 0


def tables() -> dict[str, type[Kernel]]:
    """Template -> the class of its tables, by name: those of this folder, and what else has been defined."""
    _import_shipped()
    return dict(sorted(_TABLES.items()))


def shipped_tables() -> dict[str, type[Kernel]]:
    """Those of this folder, which the documentation lists."""
    return {name: cls for name, cls in tables().items() if cls.__module__.startswith(f"{__package__}.")}


@functools.cache
def _import_shipped() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
