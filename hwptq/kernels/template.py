"""What makes kernels: templates, filled with the data of a [kernel.*] table. An open set, one class each.

A module of this package, or of one below it, that defines a subclass has added a template. A class that is
defined anywhere else, beside the class of its table, adds one too.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.rows import RowRescale
from hwptq.targets.templates.base import Kernel
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import VectorUnit

from .joins import Joined
from .layer import Layer
from .schedule import Schedule
from .wishes import AS_IT_IS, Wish

Table = TypeVar("Table", bound=Kernel)


class Maker(ABC):
    """Makes the kernels of layers, and says in which layouts these read and write."""

    @abstractmethod
    def steps(self, layer: Layer) -> tuple[Step, ...]:
        """The steps that compute the layer with its followers. Raises ValueError for impossible shapes."""

    def wishes(self, layer: Layer) -> list[Wish]:
        """The wish for each activation, those of the followers behind the layer's own."""
        return [AS_IT_IS for _ in layer.activations]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        """Whether the kernel can write its result in `layout`."""
        return layout == PLAIN

    def takes_followers(self, layer: Layer) -> bool:
        """Whether the kernel can apply other operators to its results before it stores them."""
        return False


class Template(Maker, Generic[Table]):
    """The kernels that one table describes.

    The layers it makes are of kinds that its table serves. It meets convolutions of one group only, unless
    they are depthwise, and those of a 1x1 window without their padding.
    """

    #: The class of its tables.
    table: ClassVar[type[Kernel]]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        table = cls.__dict__.get("table")
        if table is None:  # a base of several templates
            return
        known = _TEMPLATES.setdefault(table, cls)
        if known is not cls:
            raise TypeError(f"{cls.__qualname__} and {known.__qualname__} both fill {table.template}")

    def __init__(self, kernel: Table, unit: VectorUnit, schedule: Schedule):
        self.kernel, self.unit, self.schedule = kernel, unit, schedule

    def takes(self, layer: Layer) -> bool:
        """Whether it can compute the layer, which may have groups and padding; else portable code does."""
        return True

    def takes_halfwords(self, layer: Layer) -> bool:
        """Whether it can where the layer reads int16; else portable code does."""
        return False

    def beside(
        self, ops: Sequence[Dense], x: TensorType, constants: Sequence[Sequence[np.ndarray]]
    ) -> Joined | None:
        """The kernel of several dense layers of one tensor, whose results lie side by side; None: of none."""
        return None

    def rescaled(
        self, op: DenseFloat, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray]
    ) -> Joined | None:
        """The kernel of a dense layer with what its sums become: see Selector.dense_rescaled."""
        return None

    def with_table(
        self, op: Dense, x: TensorType, constants: Sequence[np.ndarray], table: np.ndarray
    ) -> Joined | None:
        """The kernel of a dense layer with a table of bytes behind it; None: each has its own."""
        return None


_TEMPLATES: dict[type[Kernel], type[Template[Any]]] = {}


def template_of(kernel: Kernel, unit: VectorUnit, schedule: Schedule) -> Template[Any]:
    """What makes the kernels of a table. Raises ValueError where nobody has defined it."""
    found = templates().get(type(kernel))
    if found is None:
        raise ValueError(f"there is a table of the template {kernel.template}, but no template")
    return found(kernel, unit, schedule)


def templates() -> dict[type[Kernel], type[Template[Any]]]:
    """The template of each class of tables."""
    import_kernels()
    return dict(_TEMPLATES)


@functools.cache
def import_kernels() -> None:
    """Import every module of this package and of those below it, so that all are defined."""
    package = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)
