"""Every operator of the package has all its parts: what is forgotten fails here, not on some device."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import attention_cases
import elementwise_cases
import function_cases
import group_cases
import int16_cases
import kernel_cases
import pytest
import transformer_cases
from recurrent_cases import recurrent_case

from hwptq.ir.operator import Operator, from_json, operators, to_json
from hwptq.lowering.rules import rules
from hwptq.operators.float_operator import FloatOperator

OURS = {kind: op for kind, op in operators().items() if op.__module__.startswith("hwptq.")}


def part(op: type[Operator], name: str) -> bool:
    """Whether an operator, or a base of several of them, defines a part."""
    return any(name in base.__dict__ for base in op.__mro__[: op.__mro__.index(Operator)])


@pytest.mark.parametrize("op", OURS.values(), ids=OURS)
def test_a_description_and_a_reference(op: type[Operator]) -> None:
    assert op.__doc__
    assert not op.__doc__.startswith(f"{op.__name__}("), "it says which tensors it takes, and what it gives"
    assert part(op, "reference")


@pytest.mark.parametrize("op", OURS.values(), ids=OURS)
def test_portable_code(op: type[Operator]) -> None:
    """Code for any device; of operators on floats the reference is that."""
    assert part(op, "portable") != issubclass(op, FloatOperator)


@pytest.mark.parametrize("op", OURS.values(), ids=OURS)
def test_a_rule_or_what_it_is_emitted_for(op: type[Operator]) -> None:
    made = any(op in rule.makes for rule in rules().values())
    assert made != bool(op.without_rule)


def test_kernels_of_all_operators_on_integers_are_compared_with_their_references() -> None:
    makers = [
        *elementwise_cases.CPU_KINDS,
        *int16_cases.KINDS,
        *transformer_cases.KINDS,
        *group_cases.KINDS,
        *attention_cases.KINDS,
        *function_cases.KINDS,
        kernel_cases.random_case,
        recurrent_case,
    ]
    tried = {type(make(Random(seed)).op) for make in makers for seed in range(40)}
    assert tried == {op for op in OURS.values() if not issubclass(op, FloatOperator)}


def test_kinds_tell_operators_apart() -> None:
    with pytest.raises(TypeError, match="are both operators of kind 'add'"):
        type("Other", (Operator,), {"kind": "add"})


def test_a_graph_finds_operators_by_their_kinds() -> None:
    for kind in ("clamp", "lookup", "resize"):
        assert type(from_json(to_json(OURS[kind]()))) is OURS[kind]


def test_families_of_ours_are_known_before_an_operator_is_imported() -> None:
    """Else what a descriptor may list, and its schema, would depend on what was loaded."""
    code = (
        "from hwptq.targets.op_kinds import op_kinds; before = set(op_kinds()); import hwptq.operators; "
        "print(*sorted(set(op_kinds()) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
