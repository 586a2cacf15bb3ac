"""Kernels for registers that hold matrices: exact, by an emulator of the instructions, and real code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest import mock

import group_cases
import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import (
    CHANNELS,
    Case,
    check,
    conv_case,
    dense_case,
    dense_float_case,
    layer_case,
    with_followers,
    with_layouts,
)
from real_models import MODELS
from tile_emulator import KERNEL, emulating, with_tile_registers
from tvm.target import Target

import hwptq
from hwptq.backends.backend import why_not_run
from hwptq.errors import HwptqError
from hwptq.kernels.convolution import Convolution
from hwptq.kernels.select import select
from hwptq.kernels.tile_instructions import configuration
from hwptq.kernels.tile_plan import fit
from hwptq.operators.group_dense import GroupDense
from hwptq.options import Options
from hwptq.recipe import RECIPES
from hwptq.targets import load_target
from hwptq.tir import vector_unit

AVX2 = load_target("x86-64-avx2")
TILES = with_tile_registers(AVX2)
native = pytest.mark.skipif(why_not_run(AVX2) is not None, reason=f"{AVX2.name}: {why_not_run(AVX2)}")
randoms = st.randoms(use_true_random=False)
#: Beside the usual ones, inputs of several registers.
DEPTHS = (*CHANNELS, 64, 65, 130)


def checked(case: Case, threads: int = 1) -> None:
    with emulating(), mock.patch.object(vector_unit, "_LEAST_SHARED", 0):
        check(case, TILES, threads)


@native
@settings(max_examples=8, deadline=None)
@given(randoms, st.sampled_from(DEPTHS), st.sampled_from(CHANNELS), st.integers(1, 3))
def test_conv2d(random: Random, depth: int, channels: int, threads: int) -> None:
    checked(conv_case(random, depth, channels, largest=20), threads)


@native
@settings(max_examples=5, deadline=None)
@given(randoms, st.sampled_from((dense_case, dense_float_case)))
def test_dense(random: Random, kind) -> None:
    checked(kind(random))


@native
@settings(max_examples=8, deadline=None)
@given(randoms, st.integers(1, 3), st.sampled_from((group_cases.dense, group_cases.embedding)))
def test_weights_by_group(random: Random, threads: int, kind: Callable) -> None:
    checked(kind(random), threads)


@native
@pytest.mark.parametrize("weight", group_cases.WEIGHTS)
@pytest.mark.parametrize("size", [32, 48, 96, 128])
def test_groups_that_fill_registers(weight: str, size: int) -> None:
    """Tokens of a register and a part of one, vectors of channels that overlap, values at their ends."""
    codes, scales, *_ = group_cases.rows(Random(size), weight, 72, 3 * size, size)
    x = np.random.default_rng(size).choice(np.array([-128, 0, 127], np.int8), (2, 11, 3 * size))
    zeros = np.full((72, 3), 3, np.int8)
    for arrays in ((codes, scales), (codes, scales, zeros)):
        case = Case(GroupDense(weight, size, 3 * size), (x,), arrays)
        fits = size % {"int3": 32, "int2": 16}.get(weight, 8) == 0 and (weight != "int8" or len(arrays) == 2)
        with emulating():
            assert (case.steps(TILES)[-1].name == "group_dense_group_tile_registers") == fits
        checked(case)


def test_few_tokens_and_many_read_the_same_bytes() -> None:
    """So that a prompt and a step of one program hold their weights once."""
    target, rows = load_target("x86-64-amx"), group_cases.rows(Random(1), "int4", 272, 64, 32)[:2]
    found = []
    for tokens in (1, 3, 40):
        op, x = GroupDense("int4", 32, 64), np.ones((1, tokens, 64), np.int8)
        step = select(Case(op, (x,), rows).layer(), target, beside_one=True)[-1]
        found.append((step.name, [a for a in step.args if isinstance(a, np.ndarray)]))
    assert [name.removeprefix("group_dense_group_") for name, _ in found] == [
        "dot_product", "dot_product", "tile_registers",
    ]  # fmt: skip
    for _, arrays in found[1:]:
        for a, b in zip(arrays, found[0][1], strict=True):
            np.testing.assert_array_equal(a, b)


@native
@settings(max_examples=5, deadline=None)
@given(randoms, st.integers(0, 4))
def test_layouts_followers_and_other_plans(random: Random, choice: int) -> None:
    case = with_followers(layer_case(random), random)
    checked(replace(with_layouts(case, random, TILES), tile=choice))


@given(
    st.integers(1, 300), st.integers(1, 2), st.integers(1, 40), st.integers(1, 200), st.integers(1, 5),
    st.integers(0, 3), st.integers(3, 8),
)  # fmt: skip
def test_plans_cover_the_row_and_fit_the_registers(columns, stride, ci, co, width, choice, registers):
    kernel = replace(KERNEL, registers=registers)
    image = (1, (columns - 1) * stride + width)
    conv = Convolution(1, image, ci, (1, columns), co, (1, width), (1, stride), (1, 1))
    plan = fit(conv, kernel, choice)
    assert plan.lines * plan.vectors + plan.activations < registers
    assert plan.rows * (plan.segments - 1) < columns <= plan.rows * plan.segments
    assert plan.lines <= plan.all_lines
    assert plan.rows <= kernel.rows
    assert plan.groups <= kernel.rows
    assert plan.padded_run >= conv.run
    assert plan.groups * 4 <= kernel.row_bytes
    assert len(configuration(plan.sizes)) == 64


def test_the_code_has_the_instructions() -> None:
    target = load_target("x86-64-amx")
    step = conv_case(Random(4), 32, 32).steps(target)[-1]
    module = tvm.IRModule({"kernel": step.func.with_attr("global_symbol", "kernel")})
    text = tvm.tirx.build(module, target=Target(dict(target.tvm))).inspect_source("asm")
    for instruction in ("ldtilecfg", "tileloadd", "tdpbssd", "tilestored", "tilerelease"):
        assert instruction in text


@native
def test_a_system_that_refuses_the_registers_is_named(tmp_path: Path) -> None:
    """Linux knows no state 63."""
    target = tmp_path / "refused.toml"
    text = 'schema = 1\nname = "refused"\nextends = "x86-64-avx2"\n[toolchain]\nstate_component = 63\n'
    target.write_text(text, encoding="utf-8")
    arguments = MODELS["demo"].arguments(2, 1)
    with pytest.raises(HwptqError, match="the system refuses the registers that it needs"):
        hwptq.compile(
            **arguments, target=target, output=tmp_path / "out", options=Options(recipe=RECIPES["fast"])
        )
