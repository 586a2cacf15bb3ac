"""Which kernel an operator gets is a matter of the descriptor alone."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from integer_targets import INTEGER_TARGETS
from kernel_cases import Case, conv_case, dense_case, int8, type_of

from hwptq.kernels.grouped_convolution import bundle_of, diagonal
from hwptq.kernels.layer import Layer
from hwptq.kernels.select import select, selector_of
from hwptq.kernels.wishes import AS_IT_IS
from hwptq.operators.add import Add
from hwptq.operators.conv2d import Conv2d
from hwptq.operators.lookup import Lookup
from hwptq.operators.quantize import Quantize
from hwptq.targets import load_target
from hwptq.targets.schema import OpRule
from hwptq.tir.builder import ELEMENT_BY_ELEMENT, TEMPLATE
from hwptq.tir.kernel import PREVIOUS
from hwptq.tir.layout import PLAIN, Layout

ARM = load_target("arm-cortex-a")


def conv(padding: tuple[int, int, int, int], channels: int = 16, groups: int = 1) -> Case:
    """A 3x3 convolution of a 6x6 image."""
    case = conv_case(Random(0), channels, channels, groups)
    op = Conv2d((1, 1), padding, (1, 1), groups, 3, 0, -128, 127)
    weight = int8(Random(0), channels, 3, 3, channels // groups)
    return Case(op, (int8(Random(1), 1, 6, 6, channels),), (weight, *case.constants[1:]))


def templates(case: Case, target=ARM) -> list[str]:
    return [str(step.func.attrs[TEMPLATE]) for step in case.steps(target)]


def test_rules_name_the_template():
    assert templates(conv((0, 0, 0, 0))) == ["dot_product"]
    assert templates(conv((0, 0, 0, 0), groups=16)) == ["depthwise_dot_product"]
    grouped = ["slice_channels", "dot_product"] * 2
    assert templates(conv((0, 0, 0, 0), channels=64, groups=2)) == [*grouped, "concatenate"]
    assert templates(dense_case(Random(1)))[-1] == "dot_product"


def test_padding_is_a_step_of_its_own():
    pack, kernel = conv((1, 1, 1, 1)).steps(ARM)
    assert pack.name == "pack_input"
    assert pack.args == (0,)
    assert kernel.args[0] == PREVIOUS
    assert kernel.name == "conv2d_dot_product"


def test_the_first_argument_is_the_activation_where_nothing_is_packed():
    (kernel,) = conv((0, 0, 0, 0)).steps(ARM)
    assert kernel.args[0] == 0
    assert all(isinstance(a, np.ndarray) for a in kernel.args[1:])


def test_without_a_rule_or_a_kernel_the_portable_code_computes():
    without = tuple(r for r in ARM.ops if r.op != "conv2d")
    assert templates(conv((0, 0, 0, 0)), replace(ARM, ops=without)) == ["portable"]
    unnamed = (*without, OpRule("conv2d"))
    assert templates(conv((1, 1, 1, 1)), replace(ARM, ops=unnamed)) == ["portable"]


def test_other_operators_keep_their_arguments():
    x, table = int8(Random(0), 2, 3), int8(Random(0), 256)
    (step,) = select(Layer(Lookup(), (type_of(x),), (table,), type_of(x)), load_target("riscv64-rvv"))
    assert step.args[0] == 0
    assert step.args[1] is table
    add = Add(0, 0, 1, 1, 2**30, 1, 0, -128, 127)
    (step,) = select(Layer(add, (type_of(x), type_of(x)), (), type_of(x)), ARM)
    assert step.args == (0, 1)


@pytest.mark.parametrize("name", INTEGER_TARGETS)
def test_int4_weights_take_half_the_bytes(name):
    """Every shipped CPU target, for a convolution whose channels fill its vectors."""
    case = conv((1, 1, 1, 1), channels=32)
    narrow = replace(
        case, op=replace(case.op, weight_bits=4), constants=(case.constants[0] & -16, *case.constants[1:])
    )
    whole, half = (c.steps(load_target(name))[-1].args[1].nbytes for c in (case, narrow))
    assert (whole, half) == (32 * 32 * 9, 32 * 32 * 9 // 2)


def test_a_kernel_of_the_wrong_kind_is_refused():
    rules = (OpRule("conv2d", kernel="depthwise"),)
    with pytest.raises(ValueError, match="a depthwise_dot_product kernel cannot compute conv2d"):
        conv((0, 0, 0, 0)).steps(replace(ARM, ops=rules))


def test_a_kind_of_target_without_kernels_is_refused():
    with pytest.raises(ValueError, match="there are no kernels for TVM targets of kind metal"):
        conv((0, 0, 0, 0)).steps(replace(ARM, tvm={"kind": "metal"}))


def test_shapes_that_do_not_belong_together_are_refused():
    case = conv((0, 0, 0, 0))
    wrong = replace(case.layer(), out=replace(type_of(case.expected()), shape=(1, 5, 5, 16)))
    with pytest.raises(ValueError, match="does not give"):
        select(wrong, ARM)


def test_a_depthwise_multiplier_is_a_convolution_in_groups():
    op = conv((0, 0, 0, 0), groups=16).op
    assert op.rule([np.zeros((16, 3, 3, 1))]) == "depthwise_conv2d"
    assert op.rule([np.zeros((32, 3, 3, 1))]) == "conv2d"


@pytest.mark.parametrize(
    ("groups", "inputs", "outputs", "bundle"),
    [(2, 48, 128, 1), (32, 4, 4, 4), (8, 1, 2, 8), (3, 1, 1, 3), (2, 8, 8, 2), (4, 34, 34, 1)],
)
def test_groups_are_bundled_as_far_as_it_saves_work(groups: int, inputs: int, outputs: int, bundle: int):
    assert bundle_of(groups, inputs, outputs) == bundle


def test_weights_of_a_bundle():
    weight = np.arange(1, 9, dtype=np.int8).reshape(4, 1, 1, 2)
    expected = [[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]]
    np.testing.assert_array_equal(diagonal(weight, 2).reshape(4, 4), expected)


def test_code_for_one_element_at_a_time_is_marked():
    def marked(case: Case, target) -> bool:
        return ELEMENT_BY_ELEMENT in case.steps(target)[-1].func.attrs

    hexagon, riscv = load_target("hexagon-v66-npu"), load_target("riscv64-rvv")
    x = np.zeros((1, 2, 2, 4), np.int8)
    lookup = Case(Lookup(), (x,), (np.zeros(256, np.int8),))
    quantize = Case(Quantize(1.0, 0), (x.astype(np.float32),), ())
    without = replace(ARM, ops=tuple(r for r in ARM.ops if r.op != "conv2d"))
    assert marked(conv((0, 0, 0, 0), groups=4), without)
    assert not marked(conv((0, 0, 0, 0)), ARM)
    assert [marked(lookup, t) for t in (ARM, hexagon, riscv)] == [False, False, True]
    assert [marked(quantize, t) for t in (ARM, hexagon)] == [False, True]


def test_a_convolution_in_groups_reads_and_writes_plain_tensors():
    layer, selector = conv((1, 1, 1, 1), groups=4).layer(), selector_of(load_target("x86-64-vnni"))
    assert selector.wishes(layer) == [AS_IT_IS]
    assert selector.writes(layer, PLAIN)
    assert not selector.writes(layer, Layout(slack=8))
