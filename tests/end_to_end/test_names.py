"""Any name will do for an input, an output or a node; it is shown, and matched, as the file has it."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import expected, model, node, normal, save

import hwptq
from hwptq.backends.backend import why_not_run
from hwptq.cli.terminal import show_report
from hwptq.errors import InputError
from hwptq.targets import load_target

TARGET = "x86-64-avx2"
_REASON = why_not_run(load_target(TARGET))
native = pytest.mark.skipif(_REASON is not None, reason=f"{TARGET}: {_REASON}")
INPUTS = ["input.1", "0", "/x", "-x", "file", "allow_pickle", "output_0", "größe \N{SNOWMAN}", "*/ x", "../x"]
LAYERS = ["to_q", "a_nhwc", "conv_unclamped", "[red]x[/]", "größe/[0]:1", "-x #2"]
OUTPUTS = ["0", "r_q", '"', "main", "%s"]
#: (input, first layer, output), all of the above; in the first case the layer is called as the input is.
CASES = [("x", "x", "y"), *zip_longest(INPUTS, LAYERS, OUTPUTS, fillvalue="z")]


def network(given: str, layer: str, output: str) -> Any:
    """Two layers; the input, the first layer and the output have the names that are given."""
    nodes = [
        node("Conv", "in w0 b0", "c", layer, pads=[1, 1, 1, 1]),
        node("Relu", "c", "r", "clamp"),
        node("Conv", "r w1", "y", "second"),
    ]
    nodes[0].input[0], nodes[2].output[0] = given, output
    constants = {"w0": normal(0, 4, 3, 3, 3), "b0": normal(1, 4), "w1": normal(2, 5, 4, 1, 1)}
    return model(nodes, {given: (1, 3, 6, 5)}, constants, [output])


def compiled(folder: Path, proto: Any, batches: list[dict[str, np.ndarray]], **words: Any) -> Any:
    """The artefact of a model."""
    path = save(proto, folder)
    return hwptq.compile(path, TARGET, batches, output=folder / "out", recipe="fast", **words)


def samples(given: str) -> list[dict[str, np.ndarray]]:
    return [{given: normal(10 + i, 1, 3, 6, 5)} for i in range(4)]


@native
@pytest.mark.parametrize(("given", "layer", "output"), CASES)
def test_any_name_for_an_input_a_layer_or_an_output(
    given: str, layer: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto, batches = network(given, layer, output), samples(given)
    result = compiled(tmp_path, proto, batches)
    assert result.report["bit_exact"]["mismatches"] == 0
    assert [t.name for t in result.inputs] == [given]
    assert [t.name for t in result.outputs] == [output]
    found = hwptq.load(tmp_path / "out").run(batches[0])
    (exact,) = expected(proto, batches[0])
    assert list(found) == [output]
    assert np.abs(found[output] - exact).max() < 0.2 * np.abs(exact).max()
    golden = np.load(tmp_path / "out" / "golden.npz")
    assert np.array_equal(golden[given][:1], batches[0][given])
    assert np.array_equal(golden["output_0_" if given == "output_0" else "output_0"][:1], found[output])
    assert [row["name"] for row in result.report["bits"]] == [layer, "second"]
    show_report(result.report, tmp_path / "out")
    assert layer in capsys.readouterr().out


@native
@pytest.mark.parametrize("option", ["exclude", "keep_float"])
def test_patterns_match_the_spelling_of_the_file(option: str, tmp_path: Path) -> None:
    name = "größe.1/[0]"
    pattern = r"^größe\.1/\[0\]$"
    report = compiled(tmp_path, network("x", name, "y"), samples("x"), **{option: pattern}).report
    assert report["bit_exact"]["mismatches"] == 0
    if option == "exclude":
        kept = {row["name"]: row["kept"] for row in report["assignment"]["layers"]}
        assert kept == {name: "excluded by the user", "second": None}
    else:
        reasons = {row["name"]: row["reason"] for row in report["coverage"]["nodes_float"]}
        assert reasons[name] == "excluded by the user"


@pytest.mark.parametrize("option", ["exclude", "keep_float"])
def test_a_pattern_that_matches_nothing_is_an_error(option: str, tmp_path: Path) -> None:
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(InputError, match=f"{flag} 'frist' matches no (layer|node); there are first"):
        compiled(tmp_path, network("x", "first", "y"), samples("x"), **{option: "frist"})
