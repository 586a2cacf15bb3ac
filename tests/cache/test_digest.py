"""Equal causes give one key in every process; a change of any gives another."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx_models import model, node, normal

from hwptq import passes
from hwptq.cache.digest import NoDigest, digest
from hwptq.frontends.onnx.importer import import_proto
from hwptq.options import Options
from hwptq.targets import load_target


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Held:
    word: str
    number: float


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.sampled_from(Colour) | st.builds(Held, st.text(), st.floats()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES, VALUES)
def test_only_equal_values_have_one_hash(a: Any, b: Any) -> None:
    assert (digest(a) == digest(b)) == (repr(a) == repr(b))


@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(0, 2))
def test_where_a_value_stands_matters(values: list[Any], at: int) -> None:
    at %= len(values) + 1
    assert digest(*values[:at], values[at:]) != digest(*values)


@given(
    arrays(st.sampled_from([np.int8, np.float32, np.float64]), array_shapes(), elements=st.integers(0, 9)),
    st.data(),
)
def test_every_bit_of_an_array_matters(array: np.ndarray, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, array.nbytes - 1))
    other = bytearray(array.tobytes())
    other[at] ^= 1
    changed = np.frombuffer(bytes(other), array.dtype).reshape(array.shape)
    assert digest(changed) != digest(array)
    assert digest(array[None]) != digest(array)
    assert digest(array.view(f"u{array.itemsize}")) != digest(array)
    assert digest(np.asfortranarray(array)) == digest(array)


def test_every_option_matters() -> None:
    """A value of another kind for each field of the options; those of functions can't be hashed."""
    usual = Options()
    for field in fields(usual):
        other = object.__new__(Options)
        for f in fields(usual):
            object.__setattr__(other, f.name, getattr(usual, f.name))
        object.__setattr__(other, field.name, "another")
        assert digest(other) != digest(usual), field.name


def test_every_field_of_a_target_matters() -> None:
    target = load_target("x86-64-avx2")
    for field in fields(target):
        assert digest(replace(target, **{field.name: "another"})) != digest(target), field.name


def test_a_function_has_no_hash() -> None:
    with pytest.raises(NoDigest):
        digest(1, [lambda: None])


def _module(weight: np.ndarray, name: str) -> Any:
    nodes = [node("Conv", "x w", "y", name)]
    return import_proto(model(nodes, {"x": (1, 3, 4, 4)}, {"w": weight}), "m").module


def test_weights_and_names_of_a_module_matter() -> None:
    weight = normal(0, 4, 3, 1, 1)
    one = passes.FuseConvRelu()(_module(weight, "first"))
    assert digest(passes.FuseConvRelu()(_module(weight.copy(), "first"))) == digest(one)
    assert digest(passes.FuseConvRelu()(_module(weight, "second"))) != digest(one)
    assert digest(passes.FuseConvRelu()(_module(np.nextafter(weight, np.float32(9)), "first"))) != digest(one)


def test_another_process_finds_the_same() -> None:
    line = "from hwptq.cache.digest import digest; print(digest({'a': [1, 2.5]}, {'x', 'y', 'z'}))"
    done = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7", "PATH": ""},
    )  # fmt: skip
    assert done.stdout.strip() == digest({"a": [1, 2.5]}, {"x", "y", "z"})
