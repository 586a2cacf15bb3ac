"""What a descriptor that isn't shipped may make hwptq run: known programs with harmless arguments.

Everything is an allow list. A compiler may not read or write files of the descriptor's choosing, load
plug-ins or start other programs; it may not take libraries from other folders either, because what is
linked is then run. The same holds for the emulator's -L, which the guest's loader comes from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .fields.problems import Problems, join, show, suggest
from .schema import Assembly, Toolchain
from .templates.base import Kernel

_PREFIX = r"(?:[a-z0-9_]+-(?:[a-z0-9_]+-){0,2}(?:gnu[a-z0-9]*|musl[a-z0-9]*|eabi|eabihf|elf)-)?"
_VERSION = r"(?:-\d{1,3}(?:\.\d{1,3})?)?"
_ARCHITECTURES = (
    "aarch64|aarch64_be|arm|armeb|hexagon|i386|loongarch64|mips|mips64|mips64el|mipsel|ppc|ppc64|ppc64le|"
    "riscv32|riscv64|s390x|sparc|sparc64|x86_64"
)
_COMPILERS = re.compile(rf"{_PREFIX}(?:gcc|g\+\+|clang|clang\+\+|cc){_VERSION}|nvcc")
_EMULATORS = re.compile(rf"qemu-(?:{_ARCHITECTURES})(?:-static)?")
_BOARDS = re.compile(r"qemu-system-(?:aarch64|arm|riscv32|riscv64)")
_DISASSEMBLERS = re.compile(rf"(?:{_PREFIX}|llvm-)objdump{_VERSION}|cuobjdump")

_COMPILER_ARGUMENTS = re.compile(
    r"-static|-static-pie|-no-pie|-pie|-pthread|-s|-O[0123sz]?"
    r"|-m(?:arch|cpu|tune|abi|fpu|float-abi|cmodel)=[A-Za-z0-9_.+-]+"
    r"|-msimd128|-mv\d{2}|-mhvx(?:=v\d{2})?|-mhvx-length=(?:64|128)b"
    r"|-m(?:32|64|thumb|arm|little-endian|big-endian|hard-float|soft-float)"
    r"|-W(?:all|extra|error|no-[a-z0-9-]+)"
    r"|-Wl,(?:--gc-sections|--strip-all|--as-needed|--no-undefined|-z,noexecstack|-z,now|-z,relro)"
    r"|-f(?:PIC|PIE|pic|pie|no-pic|no-pie|function-sections|data-sections|freestanding|no-builtin"
    r"|no-stack-protector|fp-contract=off|no-math-errno)"
    r"|-fuse-ld=(?:bfd|gold|lld)|-nostdlib|-nostartfiles"
    r"|-std=(?:c|gnu)(?:99|11|17)|--target=[a-z0-9_.-]+"
    r"|-l(?:m|c|gcc|atomic|pthread|rt|dl)"
)
_DISASSEMBLER_ARGUMENTS = re.compile(
    r"-d|-D|--dump-sass|-M[a-z0-9,-]+|-m[a-z0-9:._-]+|--triple=[a-z0-9_.-]+|--mattr=[a-z0-9+,-]+"
)
_EMULATOR_VALUES = {
    "-cpu": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]*"),
    "-L": re.compile(r"/usr/[a-z0-9_]+(?:-[a-z0-9_]+){1,3}/?"),
    "-s": re.compile(r"\d{1,10}"),
}
#: A board without disks, networks and images of the descriptor's choosing.
_BOARD_VALUES = {
    "-M": re.compile(r"[a-z0-9][a-z0-9.-]*"),
    "-cpu": _EMULATOR_VALUES["-cpu"],
    "-m": re.compile(r"\d{1,6}[KMG]?"),
    **{option: re.compile("none") for option in ("-display", "-monitor", "-serial", "-bios")},
    "-semihosting-config": re.compile("enable=on,target=native"),
}
_BOARD_FLAGS = ("-nodefaults", "-no-reboot")
_TVM_KEYS = (
    *("kind", "keys", "mtriple", "mcpu", "mattr", "mfloat-abi", "mabi", "num-cores", "opt-level"),
    *("vector-width", "arch", "max_num_threads", "thread_warp_size", "max_threads_per_block"),
    "max_shared_memory_per_block",
)

#: Lists of options of LLVM that change nothing but code.
_LLVM_OPTIONS = (["-hexagon-vector-combine=0"],)

#: What inner loops consist of: loads of vectors, multiply-accumulates, a counter and a branch.
_INSTRUCTIONS = re.compile(r"(?:ld[1-4p]|ldr|[us]{1,2}(?:mmla|dot)|subs?|b\.ne|bnez|cbnz)(?: .*)?")

ADVICE = "if you trust this descriptor, pass --trust-descriptor"


def check_trust(values: dict[str, Any], problems: Problems) -> None:
    """Note everything of an untrusted descriptor that could run or load something else.

    `values` are the fields that a descriptor gives, None where they could not be read.
    """
    _check_assembly(values.get("assembly"), values.get("kernels") or {}, problems)
    toolchain: Toolchain | None = values.get("toolchain")
    for key, value in (values.get("tvm") or {}).items():
        if key not in _TVM_KEYS and not (key == "cl-opt" and value in _LLVM_OPTIONS):
            hint = suggest(key, _TVM_KEYS)
            hint = f"; {hint}" if hint.startswith("did") else ""
            problems.add(
                join("tvm", key), f"is refused: not a key known to change code only ({ADVICE}{hint})"
            )
    if toolchain is None:
        return
    _check_program(toolchain.compiler, "compiler", _COMPILERS, "C compiler", problems)
    _check_each(toolchain.compiler[1:], "compiler", 1, _COMPILER_ARGUMENTS, problems)
    for key, flags in (("link_flags", toolchain.link_flags), ("join_flags", toolchain.join_flags)):
        _check_each(flags, key, 0, _COMPILER_ARGUMENTS, problems)
    _check_program(toolchain.objdump, "objdump", _DISASSEMBLERS, "objdump", problems)
    _check_each(toolchain.objdump[1:], "objdump", 1, _DISASSEMBLER_ARGUMENTS, problems)
    _check_run(toolchain.run, problems)


def harmless_run(command: Sequence[str]) -> bool:
    """Whether `command` is what a descriptor may put in front of a program, or what hwptq puts there."""
    if tuple(command) in ((), ("python3",)):
        return True
    problems = Problems("")
    _check_run(tuple(command), problems)
    return not problems.found


def _check_run(command: tuple[str, ...], problems: Problems) -> None:
    """What stands in front of a program: node, an emulator of a processor, or one of a board."""
    if command[:1] == ("node",):
        for i, argument in enumerate(command[1:]):
            _refuse("run", i + 1, argument, problems)
        return
    if command and _BOARDS.fullmatch(command[0]):
        _check_board(command[1:], problems)
        return
    _check_program(command, "run", _EMULATORS, "emulator (qemu-*, qemu-system-*, node)", problems)
    _check_emulator(command[1:], problems)


def _check_assembly(assembly: Assembly | None, kernels: dict[str, Kernel], problems: Problems) -> None:
    """Code of a descriptor enters the program, which may run here: only what computes inner loops may."""
    written = {
        join(join("kernel", name), key): text
        for name, kernel in kernels.items()
        if kernel is not None
        for key, text in kernel.instructions().items()
    }
    if assembly is not None:
        written |= {f"assembly.{key}": getattr(assembly, key) for key in ("load", "load_and_step")}
        written |= {f"assembly.next[{i}]": text for i, text in enumerate(assembly.next)}
    for key, text in written.items():
        if text and not _INSTRUCTIONS.fullmatch(text):
            problems.add(key, f"{show(text)} is refused: not an instruction known in inner loops ({ADVICE})")


def _check_program(
    command: tuple[str, ...], key: str, known: re.Pattern[str], kind: str, problems: Problems
) -> None:
    if command and not known.fullmatch(command[0]):
        problems.add(
            f"toolchain.{key}[0]",
            f"{show(command[0])} is refused: it is not the bare name of a known {kind} ({ADVICE})",
        )


def _refuse(key: str, index: int, argument: str, problems: Problems) -> None:
    problems.add(
        f"toolchain.{key}[{index}]",
        f"argument {show(argument)} is refused: it is not among those known as harmless ({ADVICE})",
    )


def _check_each(
    arguments: tuple[str, ...], key: str, first: int, known: re.Pattern[str], problems: Problems
) -> None:
    for i, argument in enumerate(arguments, first):
        if not known.fullmatch(argument):
            _refuse(key, i, argument, problems)


def _check_emulator(arguments: tuple[str, ...], problems: Problems) -> None:
    """Options in pairs: -cpu NAME, -L /usr/TRIPLE, -s BYTES."""
    for i in range(0, len(arguments), 2):
        option, value = arguments[i], "".join(arguments[i + 1 : i + 2])
        if option not in _EMULATOR_VALUES:
            _refuse("run", i + 1, option, problems)
        elif not _EMULATOR_VALUES[option].fullmatch(value):
            _refuse("run", i + 2, value, problems)


def _check_board(arguments: tuple[str, ...], problems: Problems) -> None:
    """Flags and pairs of a known board, and -kernel, which the program follows."""
    if arguments[-1:] != ("-kernel",):
        last = f"toolchain.run[{len(arguments)}]"
        problems.add(last, f'must be "-kernel", which the program follows ({ADVICE})')
    i = 0
    while i < len(arguments) - 1:
        option, value = arguments[i], arguments[i + 1]
        if option in _BOARD_FLAGS:
            i += 1
            continue
        if option not in _BOARD_VALUES:
            _refuse("run", i + 1, option, problems)
        elif not _BOARD_VALUES[option].fullmatch(value):
            _refuse("run", i + 2, value, problems)
        i += 2
