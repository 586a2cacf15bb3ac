"""Softmax, norms and their neighbours as CUDA kernels, their threads emulated: equal to the reference."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
import transformer_cases
from emulated_source import emulated
from kernel_cases import Case, type_of

from hwptq.kernels.cuda.rows import norm_kernel, row_kernel
from hwptq.kernels.joins import NormJoin
from hwptq.operators.add import WIDE_FRACTION_BITS, Add
from hwptq.operators.lookup import Lookup
from hwptq.operators.masked_pool import MaskedMean
from hwptq.operators.norm import LayerNorm, RmsNorm
from hwptq.operators.rescale import Rescale
from hwptq.quant.fixed_point import quantize_multiplier
from hwptq.quant.integer_norm import norm_constants
from hwptq.targets.gpu import Gpu

GPU = Gpu()


def check(case: Case) -> None:
    arrays, expected = [*case.activations, *case.constants], case.expected()
    func = row_kernel(case.op, [type_of(a) for a in arrays], type_of(expected), GPU)
    assert func is not None
    (found,) = emulated(func, arrays, [type_of(expected)])
    np.testing.assert_array_equal(found, expected, err_msg=str(case.op))


@pytest.mark.parametrize("kind", [transformer_cases.softmax, transformer_cases.norm], ids=["softmax", "norm"])
@pytest.mark.parametrize("seed", range(3))
def test_rows(kind: Any, seed: int) -> None:
    check(kind(Random(seed)))


def test_a_mean_over_a_mask() -> None:
    random = Random(1)
    cases = iter(lambda: transformer_cases.masked_pool(random), None)
    check(next(case for case in cases if isinstance(case.op, MaskedMean)))


@pytest.mark.parametrize("entries", [256, 4096])
def test_a_table_of_int16(entries: int) -> None:
    rng = np.random.default_rng(entries)
    x = rng.integers(-entries // 2, entries // 2, (3, 40)).astype(np.int16)
    check(Case(Lookup(), (x,), (rng.integers(-128, 128, entries).astype(np.int8),)))


def test_a_table_that_does_not_fit() -> None:
    x = type_of(np.zeros(8, np.int16))
    assert (
        row_kernel(Lookup(), [x, type_of(np.zeros(2**16, np.int8))], type_of(np.zeros(8, np.int8)), GPU)
        is None
    )


def test_a_table_takes_the_blocks_that_the_chip_wants() -> None:
    x, table = type_of(np.zeros(2**18, np.int16)), type_of(np.zeros(256, np.int8))
    chips = [Gpu(busy_threads=n) for n in (2**10, 2**11, 2**30)]
    made = [row_kernel(Lookup(), [x, table], type_of(np.zeros(2**18, np.int8)), gpu) for gpu in chips]
    assert [f"BLOCKS = {n};" in str(func) for func, n in zip(made, (8, 16, 128), strict=True)] == [True] * 3


def _norm(centered: bool, count: int) -> tuple[Any, list[np.ndarray]]:
    rng = np.random.default_rng(count)
    found = norm_constants(*rng.normal(size=(2, count)), 1e-5, 2.0**-10, 2.0**-11)
    kind = LayerNorm if centered else RmsNorm
    return kind(found.eps, found.shift, 0, -(2**15), 2**15 - 1, "int16"), [found.multiplier, found.bias]


_FACTOR, _SHIFT = (int(v) for v in quantize_multiplier(np.asarray(0.4 / 2**WIDE_FRACTION_BITS)))
_ADD = Add(3, 0, 2**WIDE_FRACTION_BITS, 1234, _FACTOR, _SHIFT, 0, -(2**15), 2**15 - 1, "int16")
_BYTES = Rescale(*(int(v) for v in quantize_multiplier(np.asarray(2.0**-22))), 5, -128, 127, "int8")


@pytest.mark.parametrize(
    ("add", "rescale", "keeps_sum", "other"),
    [
        (_ADD, None, False, (5, 64)),
        (_ADD, _BYTES, False, (1, 64)),
        (_ADD, None, True, (2, 5, 64)),
        (None, _BYTES, False, None),
    ],
    ids=["sum", "sum and bytes", "sum that others read", "bytes"],
)
def test_norms_and_their_neighbours(
    add: Add | None, rescale: Rescale | None, keeps_sum: bool, other: tuple[int, ...] | None
) -> None:
    _check_join(add, rescale, keeps_sum, other, centered=not keeps_sum)


@pytest.mark.parametrize("centered", [True, False])
def test_few_lanes_for_a_row(centered: bool) -> None:
    _check_join(_ADD, _BYTES, False, (5, 64), centered, Gpu(busy_threads=32))


def _check_join(
    add: Add | None,
    rescale: Rescale | None,
    keeps_sum: bool,
    other: tuple[int, ...] | None,
    centered: bool,
    gpu: Gpu = GPU,
) -> None:
    rng = np.random.default_rng(0)
    norm, constants = _norm(centered, 64)
    x = rng.integers(-128, 128, (2, 5, 64)).astype(np.int8 if add else np.int16)
    second = rng.integers(-(2**15), 2**15, other).astype(np.int16) if other else None
    join = NormJoin(
        add, norm, rescale, type_of(x), None if second is None else type_of(second), keeps_sum, True, "int16"
    )
    made = norm_kernel(join, gpu)
    assert made is not None
    given = [x] if second is None else [x, second]
    found = emulated(made.func, [*given, *constants], made.results)
    summed = add.reference(x, second) if add else x
    normed = norm.reference(summed, *constants)
    expected = [*([summed] if keeps_sum else []), normed, *([rescale.reference(normed)] if rescale else [])]
    assert len(found) == len(expected)
    for mine, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_sums_that_are_not_of_rows_are_left() -> None:
    norm, _ = _norm(True, 64)
    x = type_of(np.zeros((2, 5, 64), np.int16))
    join = NormJoin(_ADD, norm, None, x, type_of(np.zeros((2, 1, 64), np.int16)), False, True, "int16")
    assert norm_kernel(join, GPU) is None
    assert norm_kernel(replace(join, add=replace(_ADD, out="int8"), other=x), GPU) is None
