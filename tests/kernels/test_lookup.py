"""Lookups by instructions that permute tables in registers, exactly, on this CPU and on emulated ones."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_targets import HOSTED_TARGETS
from kernel_cases import Case, any_layout, check, int8, with_layouts
from program_batch import run_batch
from tvm.target import Target

from hwptq.backends.backend import why_not_run
from hwptq.backends.static_c.raw_functions import lower, write_object
from hwptq.kernels.select import selector_of
from hwptq.kernels.table_permute import pack_table
from hwptq.operators.lookup import Lookup
from hwptq.targets import Descriptor, load_target
from hwptq.targets.templates.table_permute import TablePermuteKernel
from hwptq.tir import vector_unit

VNNI = load_target("x86-64-vnni")
#: AVX-512 VBMI: two vpermi2b and a blend.
VBMI = replace(
    VNNI,
    name="x86-64-vbmi",
    tvm={**VNNI.tvm, "mcpu": "icelake-server"},
    toolchain=replace(VNNI.toolchain, cpu_features=(*VNNI.toolchain.cpu_features, "avx512vbmi")),
    kernels={
        **VNNI.kernels,
        VNNI.rule("lookup").kernel: TablePermuteKernel(
            "llvm.x86.avx512.vpermi2var.qi.512", 64, 128, 2, 1, "low_bits"
        ),
    },
)
NATIVE = [load_target(name) for name in HOSTED_TARGETS if not load_target(name).toolchain.run] + [VBMI]
#: Around the lanes of every vector, and several vectors with each kind of rest.
SIZES = (1, 2, 3, 5, 8, 12, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 127, 128, 129, 150, 192, 255, 257, 300)
EVERY_VALUE = np.arange(-128, 128).astype(np.int8)


def lookup_case(random: Random, *shape: int) -> Case:
    """A Lookup of random values in a table of random entries, or of a step, or of -128 or 127 only."""
    rng = np.random.default_rng(random.getrandbits(32))
    steps = np.where(random.choice((-64, 0, 1, 127)) > EVERY_VALUE, -128, 127).astype(np.int8)
    table = random.choice((steps, rng.integers(-128, 128, 256).astype(np.int8), int8(random, 256)))
    return Case(Lookup(), (int8(random, *shape),), (table,))


def image_case(random: Random, target: Descriptor) -> Case:
    """A Lookup of an image in any layouts that its kernel reads and writes."""
    shape = (
        random.choice((1, 2)),
        random.randint(1, 5),
        random.randint(1, 7),
        random.choice((1, 3, 16, 33, 70)),
    )
    return with_layouts(lookup_case(random, *shape), random, target)


def every_value_case(random: Random) -> Case:
    """Each value once, at a place that is not its own."""
    case = lookup_case(random, 256)
    return replace(
        case, activations=(np.random.default_rng(random.getrandbits(32)).permutation(EVERY_VALUE),)
    )


@pytest.fixture(scope="module", params=NATIVE, ids=lambda t: t.name)
def native(request: pytest.FixtureRequest) -> Descriptor:
    if why_not_run(request.param):
        pytest.skip(f"{request.param.name}: {why_not_run(request.param)}")
    return request.param


@settings(max_examples=4, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_value(native: Descriptor, random: Random) -> None:
    check(every_value_case(random), native)


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 300), st.integers(1, 3))
def test_any_number_of_values(native: Descriptor, random: Random, size: int, threads: int) -> None:
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(lookup_case(random, size), native, threads)


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_any_layouts(native: Descriptor, random: Random, threads: int) -> None:
    with mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(image_case(random, native), native, threads)


@pytest.mark.parametrize("name", HOSTED_TARGETS)
def test_on_every_target(runnable: Callable[[str], str], name: str, tmp_path: Path) -> None:
    target = load_target(runnable(name))
    cases = [every_value_case(Random(seed)) for seed in range(2)]
    cases += [lookup_case(Random(size), size) for size in SIZES]
    cases += [image_case(Random(seed), target) for seed in range(8)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("x86-64-avx2", "vpshufb"),
        ("x86-64-vnni", "vpshufb"),
        ("arm-cortex-a", "tbx"),
        ("arm-cortex-a53", "tbx"),
    ],
)
def test_the_instruction_is_used(name: str, instruction: str, tmp_path: Path) -> None:
    target = load_target(name)
    if shutil.which(target.toolchain.objdump[0]) is None:
        pytest.skip(f"{name}: {target.toolchain.objdump[0]} not found on PATH")
    (step,) = lookup_case(Random(0), 1000).steps(target)
    device, path = Target(dict(target.tvm)), tmp_path / "kernels.o"
    write_object(lower({"kernel": step.func}, device, target.memory.alignment), device, path)
    command = [*target.toolchain.objdump, "-d", str(path)]
    assert re.search(instruction, subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def meaning(kernel: TablePermuteKernel, indices: np.ndarray, block: np.ndarray) -> np.ndarray:
    """What the instruction gives for uint8 indices, in numpy."""
    found = block[indices % kernel.entries]
    if kernel.outside == "zero":
        return np.where(indices < kernel.entries, found, 0)
    return found if kernel.outside == "low_bits" else np.where(indices < 128, found, 0)


@pytest.mark.parametrize("unsigned_in", [False, True])
@pytest.mark.parametrize("unsigned_out", [False, True])
@pytest.mark.parametrize("outside", ["zero", "low_bits"])
def test_blocks_of_the_table(outside: str, unsigned_in: bool, unsigned_out: bool) -> None:
    """Block i holds what the values of index 64 i to 64 i + 63 become, as they are stored."""
    kernel = TablePermuteKernel("llvm.none", 16, 64, 4, 4, outside)
    table = np.random.default_rng(5).integers(-128, 128, 256).astype(np.int8)
    packed = pack_table(table, unsigned_in, unsigned_out, kernel)
    stored = (EVERY_VALUE.view(np.uint8) ^ (128 if unsigned_in else 0)).astype(np.uint8)
    found = np.choose(stored // 64, [meaning(kernel, stored % 64, b) for b in packed.reshape(4, 64)])
    np.testing.assert_array_equal(found ^ np.int8(-128 if unsigned_out else 0), table)


def test_it_takes_and_gives_any_layout_in_rows() -> None:
    case = lookup_case(Random(0), 1, 3, 4, 16)
    for name in ("x86-64-avx2", "x86-64-vnni", "riscv64-rvv"):
        selector, layer = selector_of(load_target(name)), case.layer()
        (wish,) = selector.wishes(layer)
        assert wish.layout is None
        assert selector.writes(layer, any_layout(Random(1), layer.out))
