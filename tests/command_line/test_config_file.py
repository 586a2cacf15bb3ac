"""--config FILE.toml and --json, of every command that has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from command import TARGET, Command

from hwptq.cli import main as cli


def write(hwptq: Command, text: str) -> Path:
    path = hwptq.folder / "options.toml"
    path.write_text(text, encoding="utf-8")
    return path


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    children = getattr(command, "commands", {})
    if not children:
        return {path: command}
    return {k: v for name, child in children.items() for k, v in leaves(child, (*path, name)).items()}


@pytest.mark.parametrize("words", leaves(typer.main.get_command(cli.app)), ids=" ".join)
def test_every_command_has_the_common_options(words: tuple[str, ...]):
    command = leaves(typer.main.get_command(cli.app))[words]
    found = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "-q", "-v", "--config"} <= found


def test_a_file_gives_options_and_the_command_line_wins(hwptq: Command):
    text = f'model = "{hwptq.folder}/model.onnx"\ntarget = "{TARGET}"\nprecision = "w4a8"\n'
    text += f'calibration-data = "{hwptq.folder}/data.npz"\nlower-ends = true\nset = ["equalize=off"]\n'
    file = write(hwptq, text)

    def dtypes(*more: str) -> set[str]:
        outcome = hwptq("compile", "--config", file, "--dry-run", "--json", *more)
        assert outcome.code == 0, outcome.stderr
        return {row["weight"] for row in json.loads(outcome.stdout)["layers"]}

    assert dtypes() == {"int4"}
    assert dtypes("--precision", "w8a8") == {"int8"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('calibration_data = "x.npz"', "compile has no such option; did you mean calibration-data?"),
        ("nonsense = 1", "nonsense: compile has no such option; there are model, target"),
        ('target = ["a", "b"]', "target: give one value"),
        ("[target]\na = 1", "target: give one value"),
        ("target = ", "not a TOML file"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_hold(hwptq: Command, text: str, message: str):
    outcome = hwptq("compile", "--config", write(hwptq, text))
    assert outcome.code == 2
    assert message in outcome.error


def test_a_value_of_the_wrong_kind_is_wrong_usage(hwptq: Command):
    files = hwptq.folder / "model.onnx", "--target", TARGET, "--config", write(hwptq, 'threads = "many"')
    outcome = hwptq("compile", *files)
    assert outcome.code == 2
    assert "--threads" in outcome.stderr


def test_there_must_be_a_file(hwptq: Command):
    assert "can't read the options" in hwptq("verify", "out", "--config", "absent.toml").error


def test_json_of_targets(hwptq: Command):
    listed = json.loads(hwptq("targets", "list", "--json").stdout)["targets"]
    assert TARGET in {row["name"] for row in listed}
    shown = json.loads(hwptq("targets", "show", TARGET, "--json").stdout)
    assert {"operators", "compiler", "run"} <= set(shown)
