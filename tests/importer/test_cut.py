"""A model with nodes that have no code: the error has a command that cuts it in front of them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import expected, model, node, normal, save

from hwptq.errors import UnsupportedError
from hwptq.evaluate.interpret import Interpreter
from hwptq.frontends.onnx.importer import import_onnx

HEADS = [
    node("Conv", "x w", "c", "conv"),
    node("Relu", "c", "r", "relu"),
    node("Concat", "r r", "joined", "join", axis=1),
]
LOST = [node("NonZero", "part", "p", "places"), node("Cast", "p", "y", "real", to=1)]
WEIGHTS = {"w": normal(0, 4, 3, 1, 1), "first": np.array([0]), "two": np.array([2]), "axis": np.array([1])}
SLICE = node("Slice", "joined first two axis", "part", "slice")


def cut_of(path: Path) -> onnx.ModelProto:
    """What the command of the error makes of a file; its words are those of a shell."""
    with pytest.raises(UnsupportedError, match="cut the model before it by python -c") as refused:
        import_onnx(path)
    said = str(refused.value)
    command = shlex.split(said[said.index("by python") + 3 : said.rindex(", and do the rest")])
    subprocess.run([sys.executable, *command[1:]], check=True)
    return onnx.load(path.with_name(f"{path.stem}-cut.onnx"))


def names(values: object) -> list[str]:
    """Those of inputs or outputs."""
    return [value.name for value in values]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["model", "it's a model"])
def test_the_cut_is_the_last_place_where_it_is_narrowest(tmp_path: Path, name: str):
    parts = [SLICE, node("Slice", "joined two two2 axis", "q", "other"), node("NonZero", "q", "z", "more")]
    nodes = [*HEADS, *parts, *LOST, node("Cast", "z", "y2", "real2", to=1)]
    proto = model(nodes, {"x": [1, 3, 5, 5]}, WEIGHTS | {"two2": np.array([4])}, ["y", "y2"])
    cut = cut_of(save(proto, tmp_path, name))
    assert (names(cut.graph.input), names(cut.graph.output)) == (["x"], ["joined"])
    x = normal(1, 1, 3, 5, 5)
    found = Interpreter(import_onnx(tmp_path / f"{name}-cut.onnx").module).run({"x": x})
    np.testing.assert_allclose(found[0], expected(cut, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_the_largest_are_chosen_behind_the_cut(tmp_path: Path):
    choice = [node("TopK", "r two", "part i", "best", axis=-1)]
    proto = model([*HEADS[:2], *choice, *LOST], {"x": [1, 3, 5, 5]}, WEIGHTS)
    assert names(cut_of(save(proto, tmp_path)).graph.output) == ["r"]


def test_outputs_that_have_code_stay_outputs(tmp_path: Path):
    nodes = [*HEADS, SLICE, *LOST, node("Sigmoid", "c", "s", "sure")]
    proto = model(nodes, {"x": [1, 3, 5, 5], "unread": [1, 2]}, WEIGHTS, ["y", "s"])
    cut = cut_of(save(proto, tmp_path))
    assert (names(cut.graph.input), names(cut.graph.output)) == (["x"], ["part", "s"])


def test_without_a_layer_in_front_there_is_no_command(tmp_path: Path):
    proto = model([node("Relu", "x", "part"), *LOST], {"x": [1, 3, 5, 5]})
    with pytest.raises(UnsupportedError, match="cut the model before it, and do the rest"):
        import_onnx(save(proto, tmp_path))
