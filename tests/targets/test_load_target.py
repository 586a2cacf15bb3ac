"""Loading: the shipped descriptors, names and paths, `extends`."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from descriptors import ARM, edited, written

from hwptq.errors import InputError
from hwptq.targets import Descriptor, load_target, target_names
from hwptq.targets.op_kinds import op_kinds
from hwptq.targets.read import FOLDER
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.targets.templates.dot_product import DotProductKernel
from hwptq.targets.templates.table_permute import TablePermuteKernel
from hwptq.targets.templates.vector import VectorKernel

SHIPPED = ["arm-cortex-a", "arm-cortex-a53", "riscv64-rvv", "x86-64-avx2", "x86-64-vnni"]


def without_identity(descriptor: Descriptor) -> Descriptor:
    return dataclasses.replace(descriptor, name="", summary="")


def test_the_shipped_targets() -> None:
    assert set(SHIPPED) <= set(target_names())


@pytest.mark.parametrize("name", target_names())
def test_a_shipped_descriptor_is_complete(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert {rule.op for rule in target.ops} <= set(op_kinds())
    assert {"conv2d", "dense", "add", "data_movement"} <= {rule.op for rule in target.ops}
    assert all(rule.kernel == "" or rule.kernel in target.kernels for rule in target.ops)
    assert target.cost
    assert min(target.cost.values()) > 0


@pytest.mark.parametrize("name", target_names())
def test_a_copy_of_a_shipped_descriptor_loads_alike_and_without_trust(name: str, tmp_path: Path) -> None:
    """Round trip through a path: the LLVM and trust checks take it, and every value is the same."""
    copy = tmp_path / f"{name}.toml"
    copy.write_text((FOLDER / f"{name}.toml").read_text())
    assert load_target(copy) == load_target(name)


@pytest.mark.parametrize("name", target_names())
@pytest.mark.usefixtures("no_llvm")
def test_a_descriptor_written_from_its_values_is_the_same(name: str, tmp_path: Path) -> None:
    """Round trip through the dataclasses: values -> TOML -> values, nothing lost or defaulted."""
    target = load_target(name)
    path = tmp_path / "again.toml"
    path.write_text(written(target))
    assert load_target(path) == target


def test_values_of_arm() -> None:
    arm = load_target("arm-cortex-a")
    assert arm.kernels == {
        "sdot": DotProductKernel(
            "llvm.aarch64.neon.sdot.v4i32.v16i8",
            *(4, 4, 8, False, True, True, 4, 4, 4),
            group_pixels=4,
            weight_group=32,
        ),
        "depthwise": DepthwiseDotKernel(
            "llvm.aarch64.neon.sdot.v4i32.v16i8", 4, tile_pixels=2, resident_vectors=2
        ),
        "tbl": TablePermuteKernel(
            "llvm.aarch64.neon.tbl4.v16i8", 16, 64, 4, 4, "zero", "llvm.aarch64.neon.tbx4.v16i8"
        ),
    }
    assert arm.toolchain.run == ("qemu-aarch64", "-cpu", "max")
    assert arm.rule("conv2d") is not None
    assert arm.rule("lstm") is None


def test_a53_extends_arm() -> None:
    arm, a53 = load_target("arm-cortex-a"), load_target("arm-cortex-a53")
    assert a53.tvm == {**arm.tvm, "mcpu": "cortex-a53", "mattr": ["+neon"]}
    assert a53.toolchain == dataclasses.replace(
        arm.toolchain, run=("qemu-aarch64", "-cpu", "cortex-a53"), instruction=""
    )
    assert isinstance(a53.kernels["vector"], VectorKernel)
    assert "sdot" not in a53.kernels, "an inherited kernel that nothing uses any more is dropped"
    conv, arm_conv = a53.rule("conv2d"), arm.rule("conv2d")
    assert conv == dataclasses.replace(arm_conv, kernel="vector")  # type: ignore[type-var]
    assert [rule.op for rule in a53.ops] == [rule.op for rule in arm.ops]
    assert a53.requantize == arm.requantize


def test_importing_targets_and_shipped_ones_does_not_import_tvm() -> None:
    code = (
        "import sys, hwptq.targets as t; [t.load_target(n) for n in t.target_names()]; "
        "sys.exit('tvm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER.parent)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arm-cortx-a", "unknown target 'arm-cortx-a' (did you mean arm-cortex-a?; known: arm-cortex-a, "),
        ("toaster", "unknown target 'toaster' (known: arm-cortex-a, "),
        ("", "unknown target '' (known: "),
        ("..", "unknown target '..' (known: "),
        ("a" * 9999, "unknown target 'aaaa"),
        ("no/such.toml", "no/such.toml: can't read the descriptor: No such file or directory"),
        ("nothing.toml", "nothing.toml: can't read the descriptor: No such file or directory"),
    ],
)
def test_no_such_target(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_target(name)
    assert str(caught.value).startswith(message)


@pytest.mark.usefixtures("no_llvm")
class TestExtends:
    def load(self, folder: Path, text: str, name: str = "chip.toml") -> Descriptor:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return load_target(path)

    def refused(self, folder: Path, text: str) -> str:
        with pytest.raises(InputError) as caught:
            self.load(folder, text)
        return str(caught.value).replace(f"{folder}/", "")

    def child(self, of: str, rest: str = "") -> str:
        return f'schema = 1\nname = "chip"\nextends = "{of}"\n{rest}'

    def test_a_name_alone_is_enough(self, tmp_path: Path) -> None:
        chip = self.load(tmp_path, self.child(ARM))
        assert without_identity(chip) == without_identity(load_target(ARM))
        assert (chip.name, chip.summary) == ("chip", load_target(ARM).summary)

    def test_one_key_of_a_kernel(self, tmp_path: Path) -> None:
        chip = self.load(tmp_path, self.child(ARM, "[kernel.sdot]\ntile_vectors = 2\n"))
        assert chip.kernels["sdot"] == dataclasses.replace(load_target(ARM).kernels["sdot"], tile_vectors=2)

    def test_another_template_replaces_the_kernel(self, tmp_path: Path) -> None:
        kernel = '[kernel.sdot]\ntemplate = "vector"\nlanes = 8\n'
        # a vector kernel serves neither
        portable = "".join(f'[[op]]\nop = "{op}"\nkernel = ""\n' for op in ("matmul", "group_dense"))
        chip = self.load(tmp_path, self.child(ARM, kernel + portable))
        assert chip.kernels["sdot"] == VectorKernel(lanes=8)

    def test_lists_are_replaced(self, tmp_path: Path) -> None:
        chip = self.load(tmp_path, self.child(ARM, "[toolchain]\nlink_flags = []\n"))
        assert chip.toolchain.link_flags == ()

    def test_a_relative_path_and_a_chain(self, tmp_path: Path) -> None:
        self.load(tmp_path, self.child(ARM, "[memory]\nalignment = 128\nscratchpad = 1024\n"), "base/b.toml")
        chip = self.load(tmp_path, self.child("base/b.toml", "[memory]\nalignment = 32\n"))
        assert (chip.memory.alignment, chip.memory.scratchpad) == (32, 1024)

    def test_a_problem_names_the_file_it_is_in(self, tmp_path: Path) -> None:
        (tmp_path / "base.toml").write_text(edited(ARM, ("k = 4", "k = 0")))
        message = self.refused(tmp_path, self.child("base.toml", "[memory]\nalignment = 3\n"))
        assert message.split("\n") == [
            "base.toml: kernel.sdot.k: must be from 1 to 64, not 0",
            "chip.toml: memory.alignment: must be a power of two, not 3",
        ]

    def test_schema_and_name_are_not_inherited(self, tmp_path: Path) -> None:
        message = self.refused(tmp_path, f'extends = "{ARM}"\n')
        assert [line.split(": ")[1] for line in message.split("\n")] == ["schema", "name"]

    @pytest.mark.parametrize(
        ("extends", "message"),
        [
            ("arm-cortex-b", "unknown target 'arm-cortex-b' (did you mean arm-cortex-a?)"),
            ("gone.toml", "no such .toml file: 'gone.toml'"),
            ("./passwd", "no such .toml file: './passwd'"),
            ("/dev/zero", "no such .toml file: '/dev/zero'"),
            ("chip.toml", "'chip.toml' extends this file in turn: a cycle"),
            ("./sub/../chip.toml", "extends this file in turn: a cycle"),
            ("", "must be the name of a target or the path of a .toml file, not ''"),
        ],
    )
    def test_a_base_that_cannot_be_used(self, extends: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        first = self.refused(tmp_path, self.child(extends)).split("\n")[0]
        assert first.startswith("chip.toml: extends: ")
        assert message in first

    def test_a_cycle_of_two(self, tmp_path: Path) -> None:
        (tmp_path / "b.toml").write_text(self.child("chip.toml"))
        assert "a cycle" in self.refused(tmp_path, self.child("b.toml"))

    def test_a_long_chain(self, tmp_path: Path) -> None:
        for i in range(12):
            (tmp_path / f"{i}.toml").write_text(self.child(f"{i + 1}.toml"))
        assert "extends: more than 8 files in a chain" in self.refused(tmp_path, self.child("0.toml"))

    def test_extends_must_be_text(self, tmp_path: Path) -> None:
        message = self.refused(tmp_path, 'schema = 1\nname = "chip"\nextends = ["a"]\n')
        assert message.startswith("chip.toml: extends: must be the name of a target")
