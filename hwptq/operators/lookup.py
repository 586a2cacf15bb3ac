"""Functions of one tensor, element by element, as tables of all its codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from hwptq.formats import format_of
from hwptq.lowering.emitter import Emitter
from hwptq.lowering.operand import NotInteger, Operand
from hwptq.lowering.output import Output
from hwptq.lowering.table import tabulate
from hwptq.tir.kernel import TensorType
from hwptq.tir.lookup import emit_lookup, one_by_one
from hwptq.tir.vector_unit import VectorUnit

from .code_operator import CodeOperator

_BYTES = 256


@dataclass(frozen=True)
class Lookup(CodeOperator):
    """(x, table) -> table[place of x among all codes of its format]: any function of one tensor, exact.

    A table has 256 entries, 4,096 of int12, 65,536 of int16 and bfloat16, and the result its dtype. Codes of
    integers are in the order of their values, those of floats in that of their bits.
    """

    kind: ClassVar[str] = "lookup"
    by_value: ClassVar[bool] = True
    without_rule: ClassVar[str] = "a function of one tensor, element by element"
    reads_layouts: ClassVar[bool] = True
    writes_layouts: ClassVar[bool] = True

    def reference(self, x, table) -> np.ndarray:
        held = format_of(str(x.dtype))
        return table[held.codes(x) if held.is_float else x.astype(np.int64) + len(table) // 2]

    def rule(self, constants: Sequence[np.ndarray]) -> str:
        """Kernels of descriptors find bytes by bytes."""
        return self.family if all(t.nbytes == _BYTES for t in constants) else ""

    def element_by_element(self, unit: VectorUnit) -> bool:
        return True

    def portable(
        self, inputs: Sequence[TensorType], out: TensorType, unit: VectorUnit
    ) -> Callable[..., None]:  # fmt: skip
        single = replace(unit, lanes=1, masked=False)
        return emit_lookup(inputs[0], out, single, one_by_one(inputs[0], out), lanes=1)


def lower_function(e: Emitter, expr: Any, root: Any, out: Output) -> Any:
    """The table of `expr`, an elementwise function of the quantized tensor `root`."""
    x = e.operand(root)
    points = x.points if x.format.is_float else e.codes_of(root).points(x.scale, x.zero)
    nan = np.isnan(points)
    real = tabulate(e.mod, e.values, expr, root, np.where(nan, np.float32(0), points))
    return emit_table(e, x, np.where(nan, np.float32(np.nan), real), out)


def emit_table(e: Emitter, x: Operand, real: np.ndarray, out: Output) -> Any:
    """A lookup of x whose entry i is quantize(real[i]). In integers a function that has no value gives 0."""
    if not np.isfinite(real[1:-1]).any():
        raise NotInteger("the function is not finite")
    if not out.in_floats:
        real = np.where(np.isnan(real), np.float32(0), real)
    return e.elementwise(Lookup(), x, (out.quantized(real),), out)
