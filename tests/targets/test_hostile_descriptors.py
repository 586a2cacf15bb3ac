"""Hostile descriptors: nothing is run, nothing hangs, and --trust-descriptor is named where it would help."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from descriptors import ARM, I8MM, Refuse, edited

from hwptq.errors import InputError
from hwptq.targets import load_target
from hwptq.targets.read import FOLDER

pytestmark = pytest.mark.usefixtures("no_llvm")

COMPILERS = [
    ["/bin/sh"],
    ["sh", "-c", "reboot"],
    ["./gcc"],
    ["../aarch64-linux-gnu-gcc"],
    ["/tmp/aarch64-linux-gnu-gcc"],
    ["gcc;reboot"],
    ["gcc", "&&", "reboot"],
    ["gcc $(reboot)"],
    ["env", "gcc"],
    ["gcc\u0000"],
    [" gcc"],
    ["GCC"],
    ["python3"],
    ["gcc-evil"],
    ["..-gcc"],
    ["gcc", "-wrapper", "sh,-c,reboot"],
    ["gcc", "-fplugin=evil.so"],
    ["gcc", "-specs=evil.specs"],
    ["gcc", "-B/tmp/evil"],
    ["gcc", "@evil.rsp"],
    ["gcc", "-o", "/etc/passwd"],
    ["gcc", "-x", "c"],
    ["gcc", "-include", "/etc/shadow"],
    ["gcc", "-Dmain=evil"],
    ["gcc", "-I/tmp/evil"],
    ["gcc", "-Xlinker", "-plugin"],
    ["gcc", "-Wp,-MD,/etc/passwd"],
    ["gcc", "-fdump-tree-all=/etc/passwd"],
    ["gcc", "-save-temps"],
    ["gcc", "--sysroot=/tmp/evil"],
    ["gcc", "evil.o"],
    ["gcc", "/tmp/evil.a"],
    ["gcc", ""],
    ["clang", "-mllvm", "-load=evil.so"],
    ["clang", "-Xclang", "-load"],
    ["clang", "--config", "evil.cfg"],
    ["clang", "-fpass-plugin=evil.so"],
    ["clang", "-fuse-ld=/tmp/evil"],
    ["clang", "--target=../evil"],
]
FLAGS = [
    "-Wl,-plugin,evil.so",
    "-Wl,-rpath,/tmp/evil",
    "-Wl,--dynamic-linker=/tmp/evil",
    "-Wl,-T,evil.ld",
    "-L/tmp/evil",
    "-L.",
    "-levil",
    "-l:evil.a",
    "-static;reboot",
    "-static\nreboot",
    "$(reboot)",
    "`reboot`",
    "-O2 -B/tmp",
    "-mcpu=a/../b",
    "-T",
    "-fuse-ld=evil",
    "-fuse-ld=../evil",
]
RUNS = [
    ["bash"],
    ["sudo", "qemu-aarch64"],
    ["/usr/bin/qemu-aarch64"],
    ["./qemu-aarch64"],
    ["qemu-aarch64/../../bin/sh"],
    ["qemu-system-aarch64"],
    ["qemu-system-arm", "-M", "mps2-an386"],
    ["qemu-system-arm", "-kernel", "/tmp/evil", "-kernel"],
    ["qemu-system-arm", "-M", "virt,firmware=evil", "-kernel"],
    ["qemu-system-arm", "-bios", "/tmp/evil", "-kernel"],
    ["qemu-system-arm", "-serial", "file:/tmp/evil", "-kernel"],
    ["qemu-system-arm", "-drive", "file=/dev/sda", "-kernel"],
    ["qemu-system-arm", "-semihosting-config", "enable=on,target=gdb", "-kernel"],
    ["qemu-system-arm", "-monitor", "tcp::1234,server", "-kernel"],
    ["node", "evil.mjs"],
    ["node", "--require", "evil.js"],
    ["qemu-img"],
    ["qemu-nbd"],
    ["qemu-aarch64", "-plugin", "evil.so"],
    ["qemu-aarch64", "-g", "1234"],
    ["qemu-aarch64", "-D", "/etc/passwd"],
    ["qemu-aarch64", "-E", "LD_PRELOAD=evil.so"],
    ["qemu-aarch64", "-L", "/tmp/evil"],
    ["qemu-aarch64", "-L", "/usr/../tmp/evil-linux-gnu"],
    ["qemu-aarch64", "-L", "."],
    ["qemu-aarch64", "-L"],
    ["qemu-aarch64", "-cpu"],
    ["qemu-aarch64", "-cpu", "max;reboot"],
    ["qemu-aarch64", "-cpu", "max", "/bin/sh"],
    ["qemu-aarch64", "/bin/sh"],
]
OBJDUMPS = [
    ["cat"],
    ["/usr/bin/objdump"],
    ["objdump", "@evil"],
    ["objdump", "-d", "/etc/shadow"],
    ["objdump;reboot"],
]


def commands(key: str, command: list[str]) -> str:
    old = {
        "compiler": 'compiler = ["aarch64-linux-gnu-gcc"]',
        "link_flags": 'link_flags = ["-static"]',
        "run": 'run = ["qemu-aarch64", "-cpu", "max"]',
        "objdump": 'objdump = ["aarch64-linux-gnu-objdump"]',
    }[key]
    return edited(ARM, (old, f"{key} = {json.dumps(command)}"))


CASES = [
    *(("compiler", command) for command in COMPILERS),
    *(("link_flags", [flag]) for flag in FLAGS),
    *(("run", command) for command in RUNS),
    *(("objdump", command) for command in OBJDUMPS),
]


@pytest.mark.parametrize(("key", "command"), CASES, ids=lambda value: ascii(value))
def test_a_hostile_command_is_refused(
    key: str, command: list[str], refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("system", "execve", "posix_spawn", "fork"):
        monkeypatch.setattr(os, name, lambda *args: pytest.fail("a command was run"))
    lines = refuse(commands(key, command))
    assert all(line.startswith(f"chip.toml: toolchain.{key}[") for line in lines)
    assert all("--trust-descriptor" in line or "printable" in line for line in lines), lines


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("compiler", ["gcc"]),
        ("compiler", ["gcc-12", "-O3", "-march=armv8.2-a+dotprod", "-mabi=lp64"]),
        ("compiler", ["clang-17", "--target=aarch64-linux-gnu", "-fuse-ld=lld"]),
        ("compiler", ["arm-linux-gnueabihf-gcc", "-mthumb", "-mfpu=neon-vfpv4", "-mfloat-abi=hard"]),
        ("compiler", ["hexagon-unknown-linux-musl-clang"]),
        ("compiler", ["arm-none-eabi-gcc", "-nostdlib", "-ffreestanding"]),
        ("link_flags", ["-static", "-Wl,--gc-sections", "-lm", "-pthread"]),
        ("link_flags", []),
        ("run", []),
        ("run", ["qemu-aarch64-static", "-cpu", "cortex-a76", "-L", "/usr/aarch64-linux-gnu"]),
        ("run", ["qemu-riscv64", "-cpu", "rv64,v=true,vlen=256"]),
        ("objdump", ["llvm-objdump-17", "--triple=aarch64"]),
    ],
)
def test_an_ordinary_command_is_taken(key: str, command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(commands(key, command))
    assert getattr(load_target(path).toolchain, key) == tuple(command)


def test_trust_takes_any_program(tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(commands("run", ["/opt/vendor/simulator", "--board", "x"]))
    assert load_target(path, trust=True).toolchain.run == ("/opt/vendor/simulator", "--board", "x")


@pytest.mark.parametrize("option", ['cl-opt = ["-load=evil.so"]', 'host = { kind = "llvm" }', 'libs = ["x"]'])
def test_options_of_tvm_that_reach_further_are_refused(option: str, refuse: Refuse) -> None:
    (line,) = refuse(edited(ARM, ("[tvm]", f"[tvm]\n{option}")))
    assert line.startswith(f"chip.toml: tvm.{option.split()[0]}: is refused")
    assert "--trust-descriptor" in line


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('assembly = "smmla v{acc', 'assembly = "svc v{acc', "kernel.smmla.assembly"),
        ('load = "ld1 ', 'load = "ldaxr ', "assembly.load"),
        ('load_and_step = "ld1 ', 'load_and_step = "blr ', "assembly.load_and_step"),
        ('"b.ne {label}"', '"b.ne {label}", "svc #0"', "assembly.next[2]"),
        ('"b.ne {label}"', '"mov x8, #221", "b.ne {label}"', "assembly.next[1]"),
    ],
)
def test_instructions_that_compute_no_inner_loop_are_refused(
    old: str, new: str, key: str, refuse: Refuse
) -> None:
    (line,) = refuse(edited(I8MM, (old, new)))
    assert line.startswith(f"chip.toml: {key}: ")
    assert "--trust-descriptor" in line


def test_instructions_of_inner_loops_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(edited(I8MM, ("registers = 32", "registers = 31")))
    assert load_target(path).assembly.registers == 31


def test_what_is_inherited_is_not_trusted_either(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(commands("run", ["sh"]))
    chip = tmp_path / "chip.toml"
    chip.write_text('schema = 1\nname = "chip"\nextends = "base.toml"\n')
    with pytest.raises(InputError, match=r"base\.toml: toolchain\.run\[0\]: 'sh' is refused"):
        load_target(chip)


def test_a_link_to_a_shipped_descriptor_is_that_descriptor(tmp_path: Path) -> None:
    link = tmp_path / "chip.toml"
    link.symlink_to(FOLDER / f"{ARM}.toml")
    assert load_target(link) == load_target(ARM)


GARBAGE = {
    "not text": b"\xff\xfe\x00",
    "a NUL": b"schema = 1\0",
    "a megabyte": b"# " + b"x\n# " * 2**19,
    "a long line": b"x" * 5000 + b" = 1",
    "many dotted parts": b"a" + b".a" * 900 + b" = 1",
    "deep lists": b"x = " + b"[\n" * 50000,
    "deep tables": b"x = " + b"{a=" * 500,
    "a huge number": b"schema = " + b"9" * 1900,
    "a huge hexadecimal number": b"schema = 0x" + b"f" * 1900,
    "many keys": b"".join(b"k%d = 1\n" % i for i in range(20000)),
    "many operators": b"".join(b'[[op]]\nop = "o%d"\n' % (i % 5000) for i in range(10000)),
    "many kernels": b"".join(b"[kernel.k%d]\n" % i for i in range(10000)),
    "many sections at once": b"".join(b"kernel.a.b%d.c = 1\n" % i for i in range(10000)),
    "escape sequences": b'"\\u001b[2J\\n" = 1\n',
    "a key with a line feed": b'kernel = { "a\\nchip.toml: b" = 1 }',
    "the override character": 'name = "\u202egpj.exe"'.encode(),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_garbage_is_refused_quickly(case: str, refuse: Refuse) -> None:
    start = time.perf_counter()
    lines = refuse(GARBAGE[case])
    assert time.perf_counter() - start < 5
    assert len(lines) <= 51
    assert all(len(line) < 1000 for line in lines)


@pytest.mark.parametrize(
    "value", ["1000000000", "-1", "0", "1" + "0" * 30, "nan", "-inf", "true", '"4"', "[]"]
)
@pytest.mark.parametrize(
    "key", ["lanes", "k", "operand_bits", "tile_pixels", "tile_vectors", "dense_vectors"]
)
def test_huge_and_senseless_numbers(key: str, value: str, refuse: Refuse) -> None:
    sdot = edited(ARM).split("[kernel.sdot]")[1].split("[kernel")[0]
    old = next(line for line in sdot.splitlines() if line.startswith(f"{key} ="))
    lines = refuse(edited(ARM, (sdot, sdot.replace(f"\n{old}\n", f"\n{key} = {value}\n"))))
    assert any(line.startswith(f"chip.toml: kernel.sdot.{key}: ") for line in lines)


def test_not_a_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.toml"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, Path("/dev/zero"), Path("a\0b/c.toml"), Path("x" * 5000 + ".toml")):
        with pytest.raises(InputError):
            load_target(path)


def test_arguments_of_node_are_refused_and_not_node(refuse: Refuse) -> None:
    (line,) = refuse(commands("run", ["node", "wasi.mjs"]))
    assert line.startswith("chip.toml: toolchain.run[1]: argument 'wasi.mjs' is refused")
