"""Frontend: what a model can be given as. An open set: a class joins it by being defined, in any file.

Modules of this package, and modules `frontend` of packages in it, are found by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar

from hwptq.errors import InputError

from .model import Model


class Frontend(ABC):
    """Reads models of one kind. accepts: what it takes, as an error says it."""

    accepts: ClassVar[str]
    _classes: ClassVar[list[type[Frontend]]] = []

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        Frontend._classes.append(cls)

    @classmethod
    @abstractmethod
    def takes(cls, source: Any) -> bool:
        """Whether `source` is of its kind; imports nothing to find out."""

    @abstractmethod
    def read(self, source: Any, axes: Mapping[str, int]) -> Model:
        """The model; `axes`: sizes of symbolic axes, by their name or as INPUT.AXIS.

        Raises InputError or UnsupportedError.
        """

    def read_fixed(self, source: Any, axes: Mapping[str, int], fixed: Mapping[str, float]) -> Model:
        """The model whose inputs named in `fixed` are constants, filled with one value each.

        Raises InputError where inputs can't be fixed here, and what `read` raises.
        """
        raise InputError(
            f"--fix {next(iter(fixed))}: is for ONNX; bind the parameter in the model that you give"
        )


def read_model(
    source: Any, axes: Mapping[str, int] | None = None, fixed: Mapping[str, float] | None = None
) -> Model:
    """The model that `source` is, read by the frontend that takes it. Raises InputError where none does.

    axes: sizes of symbolic axes; fixed: values of inputs that always have the same.
    """
    _load_all()
    for frontend in Frontend._classes:
        if frontend.takes(source):
            if fixed:
                return frontend().read_fixed(source, axes or {}, fixed)
            return frontend().read(source, axes or {})
    known = ", ".join(frontend.accepts for frontend in Frontend._classes)
    raise InputError(f"a model can't be of type {type(source).__name__}: give {known}")


@cache
def _load_all() -> None:
    package = importlib.import_module(__package__)
    for found in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{__package__}.{found.name}{'.frontend' if found.ispkg else ''}")
