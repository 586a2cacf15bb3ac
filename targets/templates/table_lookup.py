"""Lookup by an instruction that finds 32 entries in registers (vlut32 of Hexagon)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INTRINSIC, about
from hwptq.targets.fields.problems import join

from .base import Kernel
from .intrinsics import Call, Vector


@dataclass(frozen=True)
class TableLookupKernel(Kernel):
    """Bytes selected from a table in registers, 32 entries an instruction (vlut32 of Hexagon)."""

    template: ClassVar[str] = "table_lookup"
    serves: ClassVar[tuple[str, ...]] = ("lookup",)
    intrinsic: str = field(
        metadata=about(
            "LLVM intrinsic of (indices, 128 entries, b) -> entries of the indices in block b of 32, else 0",
            not_empty=True,
            **INTRINSIC,
        )
    )
    joining: str = field(
        metadata=about(
            "LLVM intrinsic of (v, indices, entries, b) -> v or the same", not_empty=True, **INTRINSIC
        )
    )

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        vector, why = Vector("int32", 32), "indices and entries are vectors of 128 bytes, as v32i32"
        operands = (vector, vector, Vector("int32", 1))
        return (
            Call(join(path, "intrinsic"), self.intrinsic, vector, operands, why),
            Call(join(path, "joining"), self.joining, vector, (vector, *operands), why),
        )
