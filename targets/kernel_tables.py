"""The [kernel.*] tables of a descriptor: one dataclass per template, with the data that fills it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .about import INSTRUCTION, INTRINSIC, about


def _weight_group() -> int:
    """The field of kernels that unpack int4 weights with factors."""
    return field(
        default=0,
        metadata=about(
            "input channels of a group of int4 weights, which share a factor where --weight-granularity "
            "group is asked for; a multiple of 2 * k; 0 = no groups",
            low=0,
            high=1024,
        ),
    )


@dataclass(frozen=True)
class DotProductKernel:
    """acc[lanes] += sum over k of activation[k] * weight[lanes][k], one instruction."""

    template: ClassVar[str] = "dot_product"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense", "matmul")
    intrinsic: str = field(
        metadata=about("LLVM name, e.g. llvm.x86.avx512.vpdpbusd.512", not_empty=True, **INTRINSIC)
    )
    lanes: int = field(metadata=about("int32 accumulators per vector", low=1, high=1024))
    k: int = field(metadata=about("products summed into each lane", low=1, high=64))
    operand_bits: int = field(
        metadata=about(
            "width of both operands in bits; lanes * k * operand_bits = vector bits", choices=(8, 16)
        )
    )
    unsigned_activation: bool = field(
        default=False, metadata=about("activations enter as uint8 (q + 128), the bias repairs it")
    )
    accumulates: bool = field(
        default=True, metadata=about("the intrinsic takes the accumulator as its first operand")
    )
    by_element: bool = field(
        default=False,
        metadata=about("4 groups of k activations are loaded at once and picked by lane (sdot by element)"),
    )
    tile_pixels: int = field(default=7, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=2, metadata=about("vectors of output channels kept in registers, per pixel", low=1, high=64)
    )
    dense_vectors: int = field(
        default=4, metadata=about("the same where there is one pixel only", low=1, high=64)
    )
    operands_as_int32: bool = field(
        default=False,
        metadata=about("LLVM types both operands as vectors of int32 (Hexagon), not of operand_bits"),
    )
    aligned: bool = field(
        default=False,
        metadata=about(
            "activations are loaded from multiples of k elements only, so channels are filled up to it; for "
            "devices without unaligned scalar loads"
        ),
    )
    weight_group: int = _weight_group()


@dataclass(frozen=True)
class MatrixMultiplyKernel:
    """acc[rows][columns] += sum over k of activation[row][k] * weight[column][k], one instruction."""

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
    weight_group: int = _weight_group()
    assembly: str = field(
        default="",
        metadata=about(
            "the same instruction in assembly language, its registers numbered {accumulator}, {activation} "
            'and {weight}; with [assembly] it makes the inner loops; "" = the compiler makes them',
            **INSTRUCTION,
        ),
    )


@dataclass(frozen=True)
class VectorKernel:
    """Portable multiply-accumulate over a vector of output channels: no intrinsic, any LLVM target."""

    template: ClassVar[str] = "vector"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    lanes: int = field(default=4, metadata=about("int32 accumulators per vector", low=1, high=1024))
    tile_pixels: int = field(default=4, metadata=about("output pixels kept in registers", low=1, high=64))
    tile_vectors: int = field(
        default=2, metadata=about("vectors of output channels kept in registers, per pixel", low=1, high=64)
    )


@dataclass(frozen=True)
class DepthwiseKernel:
    """Vector of channels, int16 products, int32 sums: no intrinsic."""

    template: ClassVar[str] = "depthwise"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    lanes: int = field(default=16, metadata=about("channels per step", low=1, high=1024))
    tile_pixels: int = field(default=2, metadata=about("output pixels kept in registers", low=1, high=64))


@dataclass(frozen=True)
class DepthwiseDotKernel:
    """Depthwise by acc[lanes] += sum over 4 of activation * weight: four rows, interleaved."""

    template: ClassVar[str] = "depthwise_dot_product"
    serves: ClassVar[tuple[str, ...]] = ("depthwise_conv2d",)
    intrinsic: str = field(
        metadata=about(
            "LLVM name of an instruction that adds 4 products of 8 bits to each lane",
            not_empty=True,
            **INTRINSIC,
        )
    )
    lanes: int = field(metadata=about("int32 accumulators per vector", low=4, high=1024))
    unsigned_activation: bool = field(
        default=False, metadata=about("activations enter as uint8 (q + 128), the bias repairs it")
    )
    tile_pixels: int = field(
        default=1,
        metadata=about("output pixels that share interleaved columns; 1 = rows as they lie", low=1, high=64),
    )
    resident_vectors: int = field(
        default=0,
        metadata=about(
            "vectors of channels whose weights stay in registers along a row; its rows are interleaved once, "
            "in a buffer; 0 = rows are interleaved in registers, for each tile",
            low=0,
            high=16,
        ),
    )
    operands_as_int32: bool = field(
        default=False, metadata=about("LLVM types both operands as vectors of int32 (Hexagon), not of int8")
    )
    block: int = field(
        default=16,
        metadata=about(
            "bytes within which the device interleaves vectors: 16 on x86-64; 4 on Hexagon, where it takes "
            "every other byte",
            low=4,
            high=1024,
            power_of_two=True,
        ),
    )


@dataclass(frozen=True)
class TableLookupKernel:
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


@dataclass(frozen=True)
class TablePermuteKernel:
    """Bytes selected by byte indices from a table in registers: pshufb, vpermi2b, tbl."""

    template: ClassVar[str] = "table_permute"
    serves: ClassVar[tuple[str, ...]] = ("lookup",)
    intrinsic: str = field(
        metadata=about(
            "LLVM intrinsic of table registers and indices, e.g. llvm.aarch64.neon.tbl4.v16i8",
            not_empty=True,
            **INTRINSIC,
        )
    )
    lanes: int = field(
        metadata=about("bytes of each operand and of the result", low=8, high=128, power_of_two=True)
    )
    entries: int = field(
        metadata=about(
            "how many one instruction selects from; a register holds entries / registers, again and again",
            low=16,
            high=256,
            power_of_two=True,
        )
    )
    registers: int = field(
        default=1, metadata=about("table registers an instruction takes", choices=(1, 2, 4))
    )
    indices: int = field(default=1, metadata=about("which operand they are, from 0", low=0, high=4))
    outside: str = field(
        default="zero",
        metadata=about(
            "the result for an index of `entries` or more: zero (tbl); low_bits: the others do not count "
            "(vpermi2b); zero_if_negative: as low_bits, but 0 if the highest bit is set (pshufb)",
            choices=("zero", "low_bits", "zero_if_negative"),
        ),
    )
    joining: str = field(
        default="",
        metadata=about(
            "where outside is zero: LLVM intrinsic of (v, table registers, indices) that gives v instead, "
            'e.g. llvm.aarch64.neon.tbx4.v16i8; "" = an or',
            **INTRINSIC,
        ),
    )


@dataclass(frozen=True)
class WgmmaTile:
    """How warpgroups cut a product into tiles, and what that costs.

    Of the tiles that fit a product, the one of the least time is taken: tiles of the busiest block *
    (bytes of depth / 128 * step_ns + end_ns), with alone_ns for step_ns where that is a single tile.
    """

    columns: int = field(metadata=about("output channels of a tile", choices=(64, 128, 192, 256)))
    step_ns: int = field(
        metadata=about("nanoseconds for 128 bytes of a tile's depth, as measured", low=1, high=10**6)
    )
    alone_ns: int = field(
        metadata=about("the same for a tile that its multiprocessor works on alone", low=1, high=10**6)
    )
    end_ns: int = field(
        metadata=about("nanoseconds that the end of a tile adds, as measured", low=0, high=10**6)
    )
    strips: int = field(
        default=1, metadata=about("times 64 rows of a tile belong to each warpgroup", low=1, high=2)
    )
    sharing: str = field(
        default="together",
        metadata=about(
            "together: both warpgroups share a tile; in_turn: each has tiles of its own, one multiplies "
            "while the other stores; apart: each has tiles and stages of its own, the second half a tile "
            "behind",
            choices=("together", "in_turn", "apart"),
        ),
    )
    promoted: bool = field(default=True, metadata=about("for promoted sums, else for others"))
    warpgroups: int = field(
        default=2, metadata=about("that multiply; more than 2 only together", choices=(2, 3))
    )
    pairs: bool = field(
        default=False,
        metadata=about(
            "of one strip and promoted sums: two steps are in flight, one is added while the other runs"
        ),
    )


@dataclass(frozen=True)
class WgmmaKernel:
    """Tiles of a product on the tensor cores of NVIDIA Hopper: wgmma, fed by TMA."""

    template: ClassVar[str] = "wgmma"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense", "matmul")
    tiles: tuple[WgmmaTile, ...] = field(metadata=about("candidates", not_empty=True))
    stages: int = field(default=6, metadata=about("tiles of the operands in flight", low=2, high=16))
    shared_memory: int = field(
        default=232448, metadata=about("bytes of shared memory of a block", low=2**14, high=2**20)
    )
    multiprocessors: int = field(
        default=132, metadata=about("blocks that run at the same time", low=1, high=4096)
    )
    channel_alignment: int = field(
        default=16,
        metadata=about(
            "channels of a tensor are padded to a multiple of it", low=16, high=128, power_of_two=True
        ),
    )


@dataclass(frozen=True)
class MmaKernel:
    """Products on tensor cores by single warps, mma.sync.m16n8k32: NVIDIA GPUs without wgmma."""

    template: ClassVar[str] = "mma"
    serves: ClassVar[tuple[str, ...]] = ("conv2d", "dense")
    columns: int = field(
        default=64,
        metadata=about("output channels of a warp", low=8, high=128, power_of_two=True),
    )
    warps: int = field(default=4, metadata=about("warps of a block, 16 rows each", low=1, high=16))
    channel_alignment: int = field(
        default=16,
        metadata=about(
            "channels of a tensor are padded to a multiple of it", low=4, high=128, power_of_two=True
        ),
    )


Kernel = (
    DotProductKernel
    | MatrixMultiplyKernel
    | VectorKernel
    | DepthwiseKernel
    | DepthwiseDotKernel
    | TableLookupKernel
    | TablePermuteKernel
    | WgmmaKernel
    | MmaKernel
)
