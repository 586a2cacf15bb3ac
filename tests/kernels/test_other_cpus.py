"""The kernels for other CPUs: run under an emulator, or at least compiled to the promised instruction."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from integer_targets import INTEGER_TARGETS
from kernel_cases import (
    Case,
    conv_case,
    depthwise_case,
    framed_case,
    image_case,
    int8,
    layer_case,
    matmul_case,
    pointwise_case,
    random_case,
    scales,
    with_followers,
    with_layouts,
)
from program_batch import run_batch
from tvm.target import Target
from tvm.tirx import PrimFunc

from hwptq.backends.static_c.raw_functions import lower, write_object
from hwptq.kernels.quantize_image import quantizes_images
from hwptq.kernels.select import selector_of
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.quantize import Quantize
from hwptq.targets import Descriptor, load_target
from hwptq.targets.templates.depthwise_dot_product import DepthwiseDotKernel
from hwptq.tir.layout import PLAIN, Layout
from hwptq.tir.vector_unit import unit_of

CASES = 24
#: The others run in this process: test_native.py tries them.
EMULATED = [name for name in INTEGER_TARGETS if load_target(name).toolchain.run]


@pytest.mark.parametrize("name", INTEGER_TARGETS)
def test_a_batch_of_random_cases(runnable: Callable[[str], str], name: str, tmp_path: Path):
    target = load_target(runnable(name))
    cases = [random_case(Random(seed)) for seed in range(CASES)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


@pytest.mark.parametrize("name", INTEGER_TARGETS)
def test_layers_in_other_layouts(runnable: Callable[[str], str], name: str, tmp_path: Path):
    target = load_target(runnable(name))
    cases = [with_layouts(random_case(Random(seed)), Random(seed), target) for seed in range(CASES)]
    cases += [with_layouts(depthwise_case(Random(seed), (6, 9)), Random(seed), target) for seed in range(6)]
    cases += [with_layouts(framed_case(Random(seed)), Random(seed), target) for seed in range(6)]
    if quantizes_images((1, 3, 1, 2), unit_of(target)):
        cases += [image_case(Random(seed), target) for seed in range(6)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


@pytest.mark.parametrize("name", [n for n in EMULATED if not load_target(n).memory.scratchpad])
def test_layers_with_followers(runnable: Callable[[str], str], name: str, tmp_path: Path):
    target = load_target(runnable(name))
    cases = []
    for seed in range(CASES // 2):
        random = Random(seed)
        case = random.choice((layer_case(random), pointwise_case(random, random.randint(1, 40))))
        cases.append(with_layouts(with_followers(case, random), random, target))
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


def test_matmul_of_two_activations(runnable: Callable[[str], str], tmp_path: Path):
    target = load_target(runnable("arm-cortex-a"))
    cases = [matmul_case(Random(seed)) for seed in range(CASES)]
    assert "matmul_dot_product" in {case.steps(target)[-1].name for case in cases}
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_interleaved_pixels(runnable: Callable[[str], str], tmp_path: Path):
    """1x1 on up to 41 pixels: the last tile overlaps, or has a pixel too many; at all channel tails."""
    target = load_target(runnable("arm-cortex-a-i8mm"))
    cases = [pointwise_case(Random(seed), seed + 2) for seed in range(40)]
    assert "interleave_pixels" in {case.steps(target)[-2].name for case in cases}
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def test_depthwise_writes_interleaved_pixels(runnable: Callable[[str], str], tmp_path: Path):
    """What the 1x1 convolution behind it reads, also from odd heights and batches."""
    target, pairs = load_target(runnable("arm-cortex-a-i8mm")), Layout(rows=2, k=8)
    cases = [depthwise_case(Random(seed), (6, 9)) for seed in range(150)]
    able = [c for c in cases if selector_of(target).writes(c.layer(), pairs)]
    assert len(able) >= 10
    cases = [replace(case, layouts=(PLAIN, pairs)) for case in able]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))


@pytest.mark.parametrize(
    ("tile_pixels", "resident_vectors"), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (3, 4)]
)
def test_depthwise_by_dot_products_of_16_bytes(
    runnable: Callable[[str], str], tile_pixels: int, resident_vectors: int, tmp_path: Path
):
    target = load_target(runnable("arm-cortex-a"))
    intrinsic = "llvm.aarch64.neon.sdot.v4i32.v16i8"
    kernel = DepthwiseDotKernel(intrinsic, 4, tile_pixels=tile_pixels, resident_vectors=resident_vectors)
    target = replace(target, kernels={**target.kernels, "depthwise": kernel})
    cases = [depthwise_case(Random(seed), (6, 9)) for seed in range(CASES // 2)]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


def listing(func: PrimFunc, target: Descriptor, folder: Path) -> str:
    """The machine code of a kernel, disassembled."""
    if shutil.which(target.toolchain.objdump[0]) is None:
        pytest.skip(f"{target.name}: {target.toolchain.objdump[0]} not found on PATH")
    device, path = Target(dict(target.tvm)), folder / "kernels.o"
    write_object(lower({"kernel": func}, device, target.memory.alignment), device, path)
    command = [*target.toolchain.objdump, "-d", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", [n for n in INTEGER_TARGETS if load_target(n).toolchain.instruction])
def test_the_promised_instruction_is_used(name: str, tmp_path: Path):
    target = load_target(name)
    steps = conv_case(Random(1), 32, 64).steps(target)
    assert target.toolchain.instruction in listing(steps[-1].func, target, tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_depthwise_takes_two_taps_an_instruction(seed: int, tmp_path: Path):
    target, case = load_target("arm-cortex-m4"), depthwise_case(Random(seed), (6, 9))
    assert "smlad" in listing(case.steps(target)[-1].func, target, tmp_path)


def test_depthwise_by_pairs_of_taps(runnable: Callable[[str], str], tmp_path: Path):
    """Windows of odd and even heights and widths, one of them wider than what is written out."""
    target = load_target(runnable("arm-cortex-m4"))
    cases = [depthwise_case(Random(seed), (6, 9)) for seed in range(CASES)]
    wide = Conv2d((1, 1), (2, 4, 2, 4), (1, 1), 5, 3, -7, -128, 127)
    for height in (1, 2, 5):
        for width in (9, 10):
            x, weight = int8(Random(height), 1, 5, 7, 5), int8(Random(width), 5, height, width, 1)
            cases.append(Case(wide, (x,), (weight, *scales(Random(0), 5, height * width))))
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.expected(), err_msg=str(case))


@pytest.mark.parametrize(
    ("name", "old"), [("arm-cortex-a", "cortex-a72"), ("arm-cortex-a-i8mm", "cortex-a76")]
)
def test_an_older_cpu_lacks_the_instruction(
    runnable: Callable[[str], str], name: str, old: str, tmp_path: Path
):
    """The kernel really depends on it: the same program is killed where it is missing."""
    target = load_target(runnable(name))
    case = conv_case(Random(3), 16, 16)
    (result,) = run_batch([case], target, tmp_path)
    np.testing.assert_array_equal(result, case.expected())
    emulator = replace(target.toolchain, run=("qemu-aarch64", "-cpu", old))
    with pytest.raises(subprocess.CalledProcessError) as error:
        run_batch([case], replace(target, toolchain=emulator), tmp_path)
    assert error.value.returncode == -signal.SIGILL


def test_a_wrong_result_is_noticed(runnable: Callable[[str], str], tmp_path: Path):
    """The comparison is a real one: the same operator with another zero point gives other values."""
    target = load_target(runnable("arm-cortex-a"))
    case = conv_case(Random(3), 16, 16)
    low, high = (replace(case, op=replace(case.op, out_zero_point=z, lo=-128, hi=127)) for z in (0, 1))
    (result,) = run_batch([low], target, tmp_path)
    np.testing.assert_array_equal(result, low.expected())
    assert not np.array_equal(result, high.expected())


@pytest.mark.parametrize("name", ["arm-cortex-m55", "riscv64-rvv"])
def test_fewer_floats_than_a_vector_has(runnable: Callable[[str], str], name: str, tmp_path: Path):
    target, rng = load_target(runnable(name)), np.random.default_rng(0)
    cases = [
        Case(Quantize(0.0017, 70), (rng.normal(0, 0.1, (1, count)).astype(np.float32),), ())
        for count in (1, 2, 3, 5, 6, 7)
    ]
    for case, result in zip(cases, run_batch(cases, target, tmp_path), strict=True):
        np.testing.assert_array_equal(result, case.in_order(), err_msg=str(case))
