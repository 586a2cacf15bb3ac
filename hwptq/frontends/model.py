"""A model as it enters the flow, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.cache.content import Content, states
from hwptq.ir.caches import Caches, caches_of, given_outputs, results
from hwptq.ir.dataflow import shape_of
from hwptq.ir.mapped import is_mapped
from hwptq.notices import Warning


@dataclass(frozen=True)
class ImportCheck:
    """What the values were compared by ("" where they weren't), the largest relative difference of an output,
    and why the comparison was not made or ended early ("" where it was made)."""

    by: str = ""
    difference: float | None = None
    reason: str = ""
    shapes: bool = True  # whether they were compared

    @property
    def warnings(self) -> tuple[Warning, ...]:
        """What the user should know of a comparison that found outputs apart, and no wrong node."""
        if not self.reason or self.difference is None:
            return ()
        text = (
            f"outputs differ by {self.difference:.2g} from {self.by}: {self.reason}; compare what the "
            f"emitted code scores with what the file scores where it runs now"
        )
        return (Warning("import", "", text),)

    def row(self) -> dict[str, Any]:
        """The object `import_check` of the report."""
        return {"shapes": self.shapes, "values": self.by or None, "difference": self.difference,
                "reason": self.reason or None}  # fmt: skip


def _write(found: ImportCheck) -> bytes:
    if found.reason:  # which may have been the time that it took
        raise TypeError("a comparison that was not made is not kept")
    return _STATES.write(found)


_STATES: Content[ImportCheck] = states((ImportCheck,))
#: Of a comparison that was made to its end.
IMPORT_CHECK = Content(_write, _STATES.read)


def unchecked(inputs: Mapping[str, np.ndarray] | None) -> ImportCheck:
    """For a model that there is nothing to compare with."""
    return ImportCheck(reason="there is nothing to compare it with", shapes=False)


@dataclass(frozen=True)
class Source:
    """The model as it was given, by a hash; None where it has none."""

    identity: str | None = None


@dataclass(frozen=True)
class Model:
    """A float32 or QDQ module whose function is `main`, of static shapes with a batch of 1."""

    name: str
    module: tvm.IRModule
    inputs: dict[str, tuple[tuple[int, ...], str]]  # name -> (shape with batch 1, dtype)
    outputs: tuple[str, ...]
    warnings: tuple[Warning, ...] = ()
    #: Compares the module with the user's model on a sample (None: there is none); raises UnsupportedError
    #: where they differ.
    check: Callable[[Mapping[str, np.ndarray] | None], ImportCheck] = unchecked
    source: Source = Source()

    @property
    def mapped(self) -> bool:
        """Whether its weights lie in files, larger than what is worth keeping of a compilation."""
        return is_mapped(self.module["main"])

    @property
    def caches(self) -> Caches | None:
        """What the program keeps from step to step, where that is noted on the module."""
        return caches_of(self.module["main"])

    @property
    def fed(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The inputs that are no caches."""
        held = self.caches.inputs if self.caches else {}
        return {name: of for i, (name, of) in enumerate(self.inputs.items()) if i not in held}

    @property
    def given(self) -> tuple[str, ...]:
        """The outputs that are no caches."""
        return tuple(given_outputs(self.module["main"], self.outputs))

    @property
    def first_shape(self) -> tuple[int, ...]:
        """Of the first output that is no cache."""
        func = self.module["main"]
        return shape_of(given_outputs(func, results(func))[0])

    @property
    def position(self) -> str | None:
        """The input that is 0 where a text begins."""
        at = self.caches.position if self.caches else None
        return None if at is None else list(self.inputs)[at]
