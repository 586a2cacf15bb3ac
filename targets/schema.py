"""What a target descriptor says, as frozen dataclasses: one definition for loader, kernels and docs.

A descriptor is a TOML file. Its sections are the fields of `Descriptor`. What is said `about` a field
(its meaning with the unit, its limits) is what the loader checks, the JSON Schema holds and
docs/targets.md lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hwptq.formats import BFLOAT16, E4M3, Pair, format_of, formats
from hwptq.quant.float_sums import Accumulators
from hwptq.quant.fp8_accumulate import Accumulator

from .fields.about import INSTRUCTION, WORD, about
from .gpu import Gpu
from .memory import Memory
from .numerics import Numerics
from .op_kinds import is_everywhere, op_kinds
from .requantize import Requantize
from .templates.base import Kernel


def dtypes() -> tuple[str, ...]:
    """Names of the formats that a tensor may have."""
    return tuple(sorted(f.name for f in formats() if f.quantized))


def priced(pair: Pair) -> str:
    """The key of [cost] for a pair of dtypes."""
    activation, weight = (format_of(name) for name in pair)
    return (activation if activation.bits > max(8, weight.bits) else weight).name


@dataclass(frozen=True)
class Toolchain:
    """How emitted code is linked, run and looked at. Commands are argument lists, never shell text."""

    compiler: tuple[str, ...] = field(
        metadata=about("C compiler driver of the device, a list of arguments", not_empty=True)
    )
    link_flags: tuple[str, ...] = field(
        default=("-static",), metadata=about("arguments added where a program is linked")
    )
    join_flags: tuple[str, ...] = field(
        default=(), metadata=about("arguments added where objects are joined to one, by -r")
    )
    runtime: str = field(
        default="libc",
        metadata=about(
            "what programs stand on: the compiler's C library; start code and system calls of hwptq; nothing "
            "at all (bare metal; needs start and memory.regions), with input and output by semihosting; "
            "three functions of WASI; or TVM's runtime in Python",
            choices=("libc", "hexagon-linux", "bare", "wasi", "tvm"),
        ),
    )
    start: str = field(
        default="",
        metadata=about(
            'the first instructions and vectors of a program of runtime "bare"; "" = none',
            choices=("", "cortex-m", "riscv"),
        ),
    )
    emit: str = field(
        default="program",
        metadata=about(
            "program: all is linked to a program that can be run; object: only NAME.o and NAME.h are made, "
            "which a project of the user's own links",
            choices=("program", "object"),
        ),
    )
    model_library: bool = field(
        default=True,
        metadata=about("whether model.so is made, for TVM's runtime; false where the device has none"),
    )
    run: tuple[str, ...] = field(
        default=(), metadata=about("command in front of the program, e.g. an emulator; [] = natively")
    )
    cpu_features: tuple[str, ...] = field(
        default=(), metadata=about("flags of /proc/cpuinfo that a native run needs", **WORD)
    )
    device_file: str = field(
        default="",
        metadata=about(
            'file that is there where the device is, else code is not run; "" = none',
            pattern=r"(/dev/[A-Za-z0-9_/-]+)?",
            like="a path below /dev",
        ),
    )
    state_component: int = field(
        default=0,
        metadata=about(
            "processor state that Linux gives only to programs that ask for its number (arch_prctl): 18, the "
            "tiles of AMX; 0 = none",
            low=0,
            high=63,
        ),
    )
    objdump: tuple[str, ...] = field(
        default=("objdump",), metadata=about("disassembler of the device's code", not_empty=True)
    )
    instruction: str = field(
        default="",
        metadata=about(
            'mnemonic that must be in the disassembly of the kernels; "" = none promised',
            pattern=r"[A-Za-z0-9_.]*",
            like="one mnemonic: letters, digits, '_' and '.'",
        ),
    )
    packages: tuple[str, ...] = field(
        default=(),
        metadata=about(
            "Debian packages that hold compiler and emulator, for error messages",
            pattern=r"[a-z0-9][a-z0-9+.-]*",
            like="the name of a Debian package",
        ),
    )


@dataclass(frozen=True)
class Fp8Accumulator:
    """What the device sums products of e4m3 in (hwptq/quant/fp8_accumulate.py)."""

    step: int = field(
        default=32, metadata=about("products summed at once", low=1, high=1024, power_of_two=True)
    )
    fraction_bits: int = field(
        default=13, metadata=about("bits kept below the largest exponent of a step", low=1, high=23)
    )
    promote: int = field(
        default=128,
        metadata=about("products after which a sum moves to a float32; 0 = never", low=0, high=2**20),
    )


@dataclass(frozen=True)
class Bf16Accumulator:
    """What the device sums products of bfloat16 in (hwptq/quant/bf16_accumulate.py)."""

    step: int = field(
        default=1,
        metadata=about(
            "products summed at once; 1 = in order, each by an fma, which needs no tensor cores",
            low=1,
            high=1024,
            power_of_two=True,
        ),
    )
    fraction_bits: int = field(
        default=23,
        metadata=about("bits kept below the largest exponent of a step; 23 in order", low=1, high=30),
    )


@dataclass(frozen=True)
class Elementwise:
    """How operators without weights are vectorised: add, mul, pooling, padding and their like."""

    lanes: int = field(
        default=16, metadata=about("int8 values per step", low=1, high=1024, power_of_two=True)
    )
    float_lanes: int = field(
        default=16,
        metadata=about(
            "float32 values per step of quantize and dequantize; 1 where the device has no float vectors",
            low=1,
            high=1024,
            power_of_two=True,
        ),
    )
    float_pairs: bool = field(
        default=True, metadata=about("two float32 are computed as a vector; false: one after the other")
    )
    masked: bool = field(
        default=False,
        metadata=about(
            "rows end in a whole vector that is stored through a mask (needs memory.readable_behind), not in "
            "narrower or overlapping vectors"
        ),
    )
    divides: bool = field(
        default=True,
        metadata=about(
            "instructions divide float32 and round it to integers; else fused multiply-adds do both, so that "
            "no function is called where a tensor enters from float"
        ),
    )


@dataclass(frozen=True)
class Assembly:
    """Instructions that inner loops are written with; operands are names in braces."""

    registers: int = field(default=0, metadata=about("vector registers; 0 = no loops", low=0, high=256))
    loaded: int = field(default=1, metadata=about("registers that one load fills at most", low=1, high=8))
    register: str = field(
        default="", metadata=about("a vector register for the compiler, e.g. v{number}", **INSTRUCTION)
    )
    operand: str = field(
        default="", metadata=about("the same in a list of loaded ones, e.g. v{number}.16b", **INSTRUCTION)
    )
    immediate: str = field(
        default="{value}",
        metadata=about("a number, e.g. #{value}", pattern=r"#?\{value\}", like="{value} or #{value}"),
    )
    load: str = field(
        default="",
        metadata=about("loads neighbouring {registers} from {pointer}", **INSTRUCTION),
    )
    load_and_step: str = field(
        default="",
        metadata=about("the same, then adds {step}, a number or a register, to {pointer}", **INSTRUCTION),
    )
    next: tuple[str, ...] = field(
        default=(),
        metadata=about("counts {counter} down and goes to {label} unless it is 0", **INSTRUCTION),
    )


@dataclass(frozen=True)
class OpRule:
    """What the device offers for one kind of operator."""

    op: str = field(metadata=about("kind of operator", choices=op_kinds))
    pairs: tuple[tuple[str, str], ...] = field(
        default=(("int8", "int8"),),
        metadata=about("allowed [activation, weight] dtypes, best first", choices=dtypes, not_empty=True),
    )
    granularity: str = field(
        default="channel",
        metadata=about(
            "how many scales the weights have: one, or one per output channel",
            choices=("tensor", "channel"),
        ),
    )
    kernel: str = field(default="", metadata=about('name of a [kernel.*] table; "" = the portable code'))
    otherwise: str = field(
        default="",
        metadata=about('name of a [kernel.*] table for what `kernel` does not take; "" = the portable code'),
    )
    float_output: bool = field(
        default=False,
        metadata=about(
            "whether sums become float32 where only float operators read them, not int8 first; dense only"
        ),
    )
    most_window: int = field(
        default=0, metadata=about("rows or columns of a window at most; 0 = any", low=0, high=2**16)
    )
    most_stride: int = field(default=0, metadata=about("stride at most; 0 = any", low=0, high=2**16))
    most_dilation: int = field(default=0, metadata=about("dilation at most; 0 = any", low=0, high=2**16))
    most_channels: int = field(
        default=0, metadata=about("channels of input or result at most; 0 = any", low=0, high=2**24)
    )
    channels_multiple: int = field(
        default=1, metadata=about("what channels of input and result are multiples of", low=1, high=2**16)
    )
    beyond: str = field(
        default="float",
        metadata=about(
            "what becomes of a node beyond these limits: it stays in float, with the reason in the report, "
            "or the model is refused",
            choices=("float", "error"),
        ),
    )
    cost: dict[str, float] = field(
        default_factory=dict,
        metadata=about(
            "[cost] of this kind of operator, where it differs; `hwptq targets measure` writes it",
            low=1e-6,
            high=1e6,
            keys=dtypes,
        ),
    )


@dataclass(frozen=True)
class Descriptor:
    """A target device: everything that hwptq knows about hardware."""

    schema: int = field(metadata=about("version of this format", choices=(1,)))
    name: str = field(
        metadata=about("the device in one word, for file names and reports", not_empty=True, **WORD)
    )
    summary: str = field(metadata=about("the device in one line", not_empty=True))
    tvm: dict[str, object] = field(metadata=about("handed to tvm.target.Target"))
    toolchain: Toolchain = field(metadata=about("how code is linked, run and looked at"))
    ops: tuple[OpRule, ...] = field(
        metadata=about(
            "one table per kind of operator; a kind that isn't listed stays float", key="op", not_empty=True
        )
    )
    kernels: dict[str, Kernel] = field(
        default_factory=dict, metadata=about("named templates with their data", key="kernel", **WORD)
    )
    requantize: Requantize = field(
        default_factory=Requantize, metadata=about("intrinsics of the requantize step")
    )
    numerics: Numerics = field(
        default_factory=Numerics, metadata=about("what integers stand for, and how they are rounded")
    )
    assembly: Assembly = field(
        default_factory=Assembly, metadata=about("instructions that inner loops are written with")
    )
    elementwise: Elementwise = field(
        default_factory=Elementwise, metadata=about("how operators without weights are vectorised")
    )
    fp8_accumulator: Fp8Accumulator = field(
        default_factory=Fp8Accumulator,
        metadata=about("what products of e4m3 are summed in, where the device has them"),
    )
    bf16_accumulator: Bf16Accumulator = field(
        default_factory=Bf16Accumulator,
        metadata=about("what products of bfloat16 are summed in, where the device has them"),
    )
    memory: Memory = field(
        default_factory=Memory, metadata=about("what the device's memory asks of the code")
    )
    gpu: Gpu = field(
        default_factory=Gpu, metadata=about("what kernels for a GPU ask of it, where the device is one")
    )
    caution: str = field(
        default="", metadata=about("what to know before relying on it; every report repeats it")
    )
    max_drop_saves: str = field(
        default="weights",
        metadata=about(
            "what the dtypes chosen for --max-drop keep low: bytes of weights, or cycles after [cost]",
            choices=("weights", "cycles"),
        ),
    )
    cost: dict[str, float] = field(
        default_factory=dict,
        metadata=about(
            "cycles per multiply-accumulate, by the dtype of weights, or of activations of more bits than 8",
            low=1e-6,
            high=1e6,
            keys=dtypes,
        ),
    )

    def cost_of(self, op: str, pair: Pair) -> float:
        """Cycles of a multiply-accumulate of a kind of operator with a pair of dtypes."""
        rule, key = self.rule(op), priced(pair)
        own = rule.cost if rule else {}
        return float(own[key] if key in own else self.cost[key])

    @property
    def accumulators(self) -> Accumulators:
        """What products of floats are summed in, for the arithmetic of quant/float_sums.py."""
        short, long = self.fp8_accumulator, self.bf16_accumulator
        return Accumulators(
            (
                (E4M3.name, Accumulator(short.step, short.fraction_bits, short.promote)),
                (BFLOAT16.name, Accumulator(long.step, long.fraction_bits, 0)),
            )
        )

    def rule(self, op: str) -> OpRule | None:
        """The rule for an operator kind, or None where the device does not compute it (it stays float)."""
        listed = next((r for r in self.ops if r.op == op), None)
        unlisted = OpRule(op) if is_everywhere(op) and self.runs_portable_code else None
        return listed or unlisted

    @property
    def runs_portable_code(self) -> bool:
        """Whether operators that no kernel is named for are computed by their portable code."""
        return self.tvm.get("kind") == "llvm"

    def weight_group(self, op: str) -> int:
        """Input channels of a group of int4 weights that the kernel of an operator kind unpacks; 0 = none."""
        rule = self.rule(op)
        kernel = self.kernels.get(rule.kernel) if rule else None
        return kernel.int4_group() if kernel else 0
