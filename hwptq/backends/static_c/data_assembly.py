"""Bytes of a file as a constant of an object file, in the assembly language of each object format."""

from __future__ import annotations

from hwptq.targets import Descriptor

_ELF = """\
.section {section}
.balign {alignment}
.globl {symbol}
{symbol}:
.incbin "{file}"
.zero {behind}
.section .note.GNU-stack,"",%progbits
"""
_MACH_O = """\
.section {section}
.balign {alignment}
.globl _{symbol}
_{symbol}:
.incbin "{file}"
.zero {behind}
"""
_WASM = """\
.section {section},"",@
.balign {alignment}
.globl {symbol}
.type {symbol},@object
{symbol}:
.incbin "{file}"
.zero {behind}
.size {symbol}, .-{symbol}
"""
_SECTIONS = {  # constants, variables
    _ELF: (".rodata", ".data"),
    _MACH_O: ("__TEXT,__const", "__DATA,__data"),
    _WASM: (".rodata.{symbol}", ".data.{symbol}"),
}


def data_assembly(symbol: str, file: str, target: Descriptor, *, writable: bool = False) -> str:
    """The bytes of `file` under the name of `symbol`, aligned and readable behind as the target wants it."""
    template = _format(str(target.tvm.get("mtriple", "")))
    section = _SECTIONS[template][writable].format(symbol=symbol)
    behind = target.memory.readable_behind + 1
    return template.format(
        symbol=symbol, file=file, section=section, alignment=target.memory.alignment, behind=behind
    )


def _format(triple: str) -> str:
    """What objects for an LLVM triple are written in."""
    if triple.startswith("wasm"):
        return _WASM
    return _MACH_O if any(name in triple for name in ("apple", "darwin", "macos", "ios")) else _ELF
