"""The dtypes whose products the tensor cores sum."""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from hwptq.formats import bf16, fp8


@dataclass(frozen=True)
class Operand:
    """What an instruction multiplies: both operands have one dtype."""

    dtype: str
    bytes: int  # of an element
    step: int  # products that an instruction sums
    name: str  # of sums and operands in PTX
    sums: str  # dtype of the accumulators
    signs: tuple[int, ...] = (1, 1)  # factors of both operands, which those on floats take; no transposition

    @property
    def warp_instruction(self) -> str:
        """PTX of the product of 16 rows and 8 columns over one step, by a warp."""
        sums = self.name.split(".")[0]
        return f"mma.sync.aligned.m16n8k{self.step}.row.col.{self.name}.{sums}"

    @property
    def registers(self) -> str:
        """The dtype of the registers that hold sums; PTX takes an int32 in an unsigned one."""
        return "uint32" if self.sums == "int32" else self.sums

    def instruction(self, columns: int) -> str:
        """PTX of the product of 64 rows and `columns` columns over one step."""
        return f"wgmma.mma_async.sync.aligned.m64n{columns}k{self.step}.{self.name}"


E4M3 = Operand(fp8.DTYPE, 1, 32, "f32.e4m3.e4m3", "float32")
INT8 = Operand("int8", 1, 32, "s32.s8.s8", "int32", ())
BFLOAT16 = Operand(bf16.DTYPE, 2, 16, "f32.bf16.bf16", "float32", (1, 1, 0, 0))
#: Those that `float_sums` sums, by dtype.
FLOATS = {operand.dtype: operand for operand in (E4M3, BFLOAT16)}


def item_bytes(dtype: str) -> int:
    """Bytes of an element."""
    return int(tvm.DataType(dtype).bits) // 8
