"""The machine code of a model for an NVIDIA GPU: which instructions each kernel has."""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from hwptq.backends.toolchain import call_environment, find_program
from hwptq.errors import InputError
from hwptq.targets import Descriptor

_MAGIC = struct.pack("<I", 0xBA55ED50)  # begins a fat binary
_HEADER = struct.Struct("<IHHQ")  # magic, version, bytes of the header, bytes behind it
_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.M)
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)", re.M)


def fat_binary(library: Path) -> bytes:
    """The fat binary inside a model.so. Raises InputError where there is none."""
    data = library.read_bytes()
    at = data.find(_MAGIC)
    if at < 0:
        raise InputError(f"{library}: holds no CUDA binary")
    _, _, header, rest = _HEADER.unpack_from(data, at)
    return data[at : at + header + rest]


def instructions(library: Path, target: Descriptor) -> dict[str, Counter[str]]:
    """How often each kernel of a model.so has each instruction, such as QGMMA.

    Raises InputError where the descriptor's disassembler is not installed.
    """
    tool = find_program(target.toolchain.objdump[0])
    if tool is None:
        raise InputError(f"{target.toolchain.objdump[0]} not found on PATH; pip install 'hwptq[cuda]'")
    with tempfile.TemporaryDirectory(prefix="hwptq-") as folder:
        file = Path(folder) / "kernels.fatbin"
        file.write_bytes(fat_binary(library))
        command = [tool, *target.toolchain.objdump[1:], str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=call_environment())
    _, *parts = _FUNCTION.split(done.stdout)
    return {
        name: Counter(_INSTRUCTION.findall(code)) for name, code in zip(parts[::2], parts[1::2], strict=True)
    }
