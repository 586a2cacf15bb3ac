"""Matrix multiplies: an instruction that adds k products to rows by columns (smmla)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hwptq.targets.fields.about import INSTRUCTION, INTRINSIC, about
from hwptq.targets.fields.problems import Problems, join

from . import meanings
from .base import Kernel
from .intrinsics import Call, Vector
from .limits import check_operands, check_vector, check_weight_group, weight_group


@dataclass(frozen=True)
class MatrixMultiplyKernel(Kernel):
    """`acc[rows][columns] += sum over k of activation[row][k] * weight[column][k]`, one instruction."""

    template: ClassVar[str] = "matrix_multiply"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    intrinsic: str = field(
        metadata=about("LLVM name, e.g. llvm.aarch64.neon.smmla.v4i32.v16i8", not_empty=True, **INTRINSIC)
    )
    rows: int = field(
        metadata=about("pixels per instruction; rows * k bytes make an operand", low=1, high=64)
    )
    columns: int = field(
        metadata=about("output channels per instruction; columns * k bytes make the other", low=1, high=64)
    )
    k: int = field(metadata=about("products of int8 summed into each accumulator", low=1, high=64))
    tile_pixels: int = field(default=8, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=4, metadata=about("times `columns` output channels kept in registers", low=1, high=64)
    )
    dense_vectors: int = field(
        default=8, metadata=about("the same where there is one pixel only", low=1, high=64)
    )
    weight_group: int = weight_group()
    assembly: str = field(
        default="",
        metadata=about(
            "the same instruction in assembly language, its registers numbered {accumulator}, {activation} "
            'and {weight}; with [assembly] it makes the inner loops; "" = the compiler makes them',
            **INSTRUCTION,
        ),
    )

    def check(self, path: str, registers: int | None, problems: Problems) -> None:
        check_weight_group(self.weight_group, self.k, path, problems)
        sizes = (
            ("rows", "rows * k * 8", self.rows * self.k * 8),
            ("columns", "columns * k * 8", self.columns * self.k * 8),
            ("columns", "rows * columns * 32", self.rows * self.columns * 32),
        )
        for key, formula, bits in sizes:
            check_vector(bits, formula, join(path, key), problems, "; registers of matrices: tile_registers")
        if self.assembly and registers is not None:
            self._check_assembly(join(path, "assembly"), registers, problems)

    def _check_assembly(self, path: str, registers: int, problems: Problems) -> None:
        check_operands(path, self.assembly, ("accumulator", "activation", "weight"), problems)
        lines = -(-self.tile_pixels // self.rows)
        least = lines * self.tile_vectors + min(lines, self.tile_vectors) + 1
        if least > registers:
            problems.add(
                path,
                f"tile_pixels and tile_vectors take {least} registers or more, [assembly] has {registers}",
            )

    def intrinsics(self, path: str) -> tuple[Call, ...]:
        result = Vector("int32", self.rows * self.columns)
        operands = (result, *(Vector("int8", n * self.k) for n in (self.rows, self.columns)))
        why = (
            f"rows {self.rows}, columns {self.columns} and k {self.k} "
            f"make operands {', '.join(map(str, operands))}"
        )
        meaning = meanings.matrix_multiply(self.rows, self.columns, self.k)
        return (Call(join(path, "intrinsic"), self.intrinsic, result, operands, why, meaning),)

    def instructions(self) -> dict[str, str]:
        return {"assembly": self.assembly}

    def int4_group(self) -> int:
        return self.weight_group
