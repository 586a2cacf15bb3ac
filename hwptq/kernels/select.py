"""Which kernel computes what on a device: a selector for each kind of code generator. An open set.

A module of this package, or of one below it, that defines a subclass has added one, as does a class that is
defined anywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from hwptq.formats import INT16
from hwptq.ir.real_operator import RealOperator
from hwptq.operators.dense import Dense, DenseFloat
from hwptq.operators.group_dense import GroupDense
from hwptq.operators.layers import IntegerLayer
from hwptq.operators.rows import RowRescale
from hwptq.targets.schema import Descriptor
from hwptq.tir.kernel import Step, TensorType
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import unit_of

from .joins import AttentionJoin, ElementsJoin, Joined, NormJoin, RowsJoin
from .layer import Layer
from .schedule import schedule_of
from .template import Template, import_kernels, template_of
from .wishes import AS_IT_IS, Wish


class Selector(ABC):
    """The kernels for a target, large ones in parts for so many threads. beside_one: those of several rows
    (tokens) read weights as those of one row do, which are in the same program."""

    #: The kind of TVM target whose code it selects.
    kind: ClassVar[str]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if _SELECTORS.setdefault(cls.kind, cls) is not cls:
            raise TypeError(
                f"{cls.__qualname__} and {_SELECTORS[cls.kind].__qualname__} both serve {cls.kind}"
            )

    def __init__(self, target: Descriptor, threads: int = 1, beside_one: bool = False):
        self.target, self.threads, self.beside_one = target, threads, beside_one

    @abstractmethod
    def steps(self, layer: Layer, tile: int = 0) -> tuple[Step, ...]:
        """The steps that compute a layer. A Quantize from [N,C,H,W] to [N,H,W,C] moves the axes too.

        `tile`: see Schedule; all of them compute the same. Raises ValueError where the descriptor names a
        kernel that cannot compute the layer.
        """

    @abstractmethod
    def concatenation(self, inputs: Sequence[TensorType], axis: int, out: TensorType) -> Step:
        """The step that joins `inputs` along `axis`."""

    def movement(self, x: TensorType, strides: Sequence[int], first: int, out: TensorType) -> Step | None:
        """The step that reads `x` from element `first` on with `strides`; None: TVM's own code is best."""
        return None

    def real(self, op: RealOperator, inputs: Sequence[TensorType], out: TensorType) -> tuple[Step, ...]:
        """The steps that compute an operator on real numbers; none: its own code is for any core."""
        return ()

    def attention(self, join: AttentionJoin) -> Joined | None:
        """The kernel of a whole attention; None where its parts have kernels of their own."""
        return None

    def norm(self, join: NormJoin) -> Joined | None:
        """The kernel of a norm together with its neighbours; None where each has one of its own."""
        return None

    def rows(self, join: RowsJoin) -> Joined | None:
        """The kernel of codes and scales of rows with what gives the rows; None: each has its own."""
        return None

    def elements(self, join: ElementsJoin) -> Joined | None:
        """The kernel of operators element by element; None where each has one of its own."""
        return None

    def dense_rescaled(
        self, op: DenseFloat | GroupDense, by: RowRescale, x: TensorType, constants: Sequence[np.ndarray]
    ) -> Joined | None:
        """The kernel (x, scales of its rows, constants…) of a dense layer and of what its sums become; None:
        each has one of its own. constants: those of the layer, and the bias behind them; where the kernel
        comes with constants, these stand for them."""
        if not isinstance(op, DenseFloat):
            return None
        found = (template.rescaled(op, by, x, constants) for template in self._named(op.family))
        return next((joined for joined in found if joined), None)

    def dense_beside(
        self, ops: Sequence[Dense], x: TensorType, constants: Sequence[Sequence[np.ndarray]]
    ) -> Joined | None:
        """The kernel of several dense layers of one tensor, whose results lie side by side; None: of none."""
        found = (template.beside(ops, x, constants) for template in self._named(ops[0].family))
        return next((joined for joined in found if joined), None)

    def dense_with_table(
        self, op: Dense, x: TensorType, constants: Sequence[np.ndarray], table: np.ndarray
    ) -> Joined | None:
        """The kernel of a dense layer with a table of bytes behind it; None: each has its own."""
        found = (template.with_table(op, x, constants, table) for template in self._named(op.family))
        return next((joined for joined in found if joined), None)

    def quantizes_images(self, shape: Sequence[int]) -> bool:
        """Whether `steps` takes a Quantize of an image [N,C,H,W] of that shape to [N,H,W,C]."""
        return False

    def wishes(self, layer: Layer) -> list[Wish]:
        """The wish for each activation of a layer: see Maker."""
        return [AS_IT_IS for _ in layer.activations]

    def writes(self, layer: Layer, layout: Layout) -> bool:
        """Whether the kernel of a layer can write its result in `layout`."""
        return layout == PLAIN

    def takes_followers(self, layer: Layer) -> bool:
        """Whether the kernel of a layer can apply other operators to its results before it stores them."""
        return False

    def template(self, layer: Layer, tile: int = 0) -> Template[Any] | None:
        """What the rules of the target name for a layer; None where they name nothing that takes it."""
        named = self._named(layer.op.rule(layer.constants), tile)
        wide = isinstance(layer.op, IntegerLayer) and layer.activations[0].dtype == INT16.held
        fitting = (template for template in named if template.takes(layer))
        return next((t for t in fitting if not wide or t.takes_halfwords(layer)), None)

    def _named(self, kind: str, tile: int = 0) -> Iterator[Template[Any]]:
        """The templates of the tables that the target names for a kind of layers, the preferred one first."""
        rule = self.target.rule(kind)
        unit, schedule = unit_of(self.target, self.threads), schedule_of(self.target, tile, self.beside_one)
        for name in (rule.kernel, rule.otherwise) if rule else ():
            if not name:
                continue
            kernel = self.target.kernels[name]
            if kind not in kernel.serves:
                raise ValueError(f"{self.target.name}: a {kernel.template} kernel cannot compute {kind}")
            yield template_of(kernel, unit, schedule)


_SELECTORS: dict[str, type[Selector]] = {}


def selector_of(target: Descriptor, threads: int = 1, beside_one: bool = False) -> Selector:
    """The selector for a target. Raises ValueError where there is none for its kind."""
    import_kernels()
    kind = str(target.tvm.get("kind"))
    if kind not in _SELECTORS:
        raise ValueError(f"{target.name}: there are no kernels for TVM targets of kind {kind}")
    return _SELECTORS[kind](target, threads, beside_one)


def select(
    layer: Layer, target: Descriptor, threads: int = 1, tile: int = 0, beside_one: bool = False
) -> tuple[Step, ...]:  # fmt: skip
    """The steps by which a target computes a layer: see Selector."""
    return selector_of(target, threads, beside_one).steps(layer, tile)
