"""What a target descriptor says, as frozen dataclasses: the one definition that loader, kernels and docs share.

A descriptor is a TOML file. Its sections are the fields of `Descriptor`; units stand in the comments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Toolchain:
    """How emitted code is linked, run and looked at. Commands are argument lists, never shell text."""

    compiler: tuple[str, ...]  # C compiler driver of the target, e.g. ("aarch64-linux-gnu-gcc",)
    link_flags: tuple[str, ...] = ("-static",)
    run: tuple[str, ...] = ()  # command in front of the program, e.g. an emulator; () = natively
    cpu_features: tuple[str, ...] = ()  # flags of /proc/cpuinfo that a native run needs
    objdump: tuple[str, ...] = ("objdump",)
    instruction: str = ""  # mnemonic that must be in the disassembly of the kernels; "" = none promised
    packages: tuple[str, ...] = ()  # Debian packages that hold compiler and emulator, for error messages


@dataclass(frozen=True)
class Numerics:
    """The arithmetic that the device does well."""

    accumulator: str = "int32"
    requantize: str = "fixed_point"
    rounding: str = "half_up"


@dataclass(frozen=True)
class Requantize:
    """Intrinsics of the requantize step; without them 64-bit integer arithmetic is used (same result)."""

    lanes: int = 4  # int32 values per intrinsic call
    multiply_high: str = ""  # (a, m) -> (2*a*m + 2^31) >> 32, e.g. llvm.aarch64.neon.sqrdmulh.v4i32
    rounding_shift: str = ""  # (v, -s) -> (v + 2^(s-1)) >> s, e.g. llvm.aarch64.neon.srshl.v4i32


@dataclass(frozen=True)
class DotProductKernel:
    """acc[lanes] += sum over k of activation[k] * weight[lanes][k], one instruction."""

    template: ClassVar[str] = "dot_product"
    intrinsic: str  # LLVM name, e.g. llvm.x86.avx512.vpdpbusd.512
    lanes: int  # int32 accumulators per vector
    k: int  # products summed into each lane
    operand_bits: int  # 8 or 16: width of both operands; lanes * k * operand_bits = vector bits
    unsigned_activation: bool = False  # activations enter as uint8 (q + 128), the bias repairs it
    accumulates: bool = True  # the intrinsic takes the accumulator as its first operand
    by_element: bool = False  # 4 groups of k activations are loaded at once and picked by lane (sdot by element)
    tile_pixels: int = 7  # output pixels x vectors of channels kept in registers
    tile_vectors: int = 2
    dense_vectors: int = 4  # the same for one pixel


@dataclass(frozen=True)
class VectorKernel:
    """Portable multiply-accumulate over a vector of output channels: no intrinsic, any LLVM target."""

    template: ClassVar[str] = "vector"
    lanes: int = 4
    tile_pixels: int = 4
    tile_vectors: int = 2


@dataclass(frozen=True)
class DepthwiseKernel:
    """Vector of channels, int16 products, int32 sums: no intrinsic."""

    template: ClassVar[str] = "depthwise"
    lanes: int = 16  # channels per step
    tile_pixels: int = 2


MacKernel = DotProductKernel | VectorKernel | DepthwiseKernel


@dataclass(frozen=True)
class OpRule:
    """What the device offers for one kind of operator."""

    op: str  # conv2d, depthwise_conv2d, dense, matmul, add, mul, lookup, max_pool, avg_pool, concat, data_movement
    pairs: tuple[tuple[str, str], ...] = (("int8", "int8"),)  # (activation, weight) dtypes, best first
    granularity: str = "channel"  # scales of the weights: tensor, channel or group
    kernel: str = ""  # name of a [kernel.*] table; "" = the portable code


@dataclass(frozen=True)
class Memory:
    alignment: int = 64  # bytes
    scratchpad: int = 0  # bytes of workspace a kernel may use; 0 = no limit


@dataclass(frozen=True)
class Descriptor:
    """A target device: everything that hwptq knows about hardware."""

    schema: int
    name: str
    summary: str
    tvm: dict[str, object]  # handed to tvm.target.Target
    toolchain: Toolchain
    ops: tuple[OpRule, ...]
    kernels: dict[str, MacKernel] = field(default_factory=dict)
    requantize: Requantize = field(default_factory=Requantize)
    numerics: Numerics = field(default_factory=Numerics)
    memory: Memory = field(default_factory=Memory)
    cost: dict[str, float] = field(default_factory=dict)  # cycles per MAC by weight dtype

    def rule(self, op: str) -> OpRule | None:
        """The rule for an operator kind, or None where the device does not list it (it stays float)."""
        return next((r for r in self.ops if r.op == op), None)
