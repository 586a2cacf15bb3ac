"""Running the command line in this process, and the files of a small model to run it on."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import model, node, normal, save

from hwptq.cli import main as cli

TARGET = "x86-64-avx2"
SHAPE = (3, 5, 6)


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The error; fails where standard error holds anything but it and lines of progress."""
        lines = self.stderr.splitlines()
        progress = r"[a-z ]+: (\d+ in )?[\d.]+ s|trial \d+: .*"
        (line,) = (line for line in lines if not re.fullmatch(progress, line))
        assert line.startswith("hwptq: ")
        return line


class Command:
    """hwptq, with its output captured."""

    def __init__(self, capsys: Any, monkeypatch: pytest.MonkeyPatch, folder: Path):
        self._capsys, self._monkeypatch, self.folder = capsys, monkeypatch, folder

    def __call__(self, *arguments: str | Path) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["hwptq", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        found = self._capsys.readouterr()
        return Outcome(int(caught.value.code or 0), found.out, found.err)

    def compile(self, *options: str | Path, **changed: str | Path) -> Outcome:
        """hwptq compile of the small model; `changed` replaces its files."""
        files = {"model": "model.onnx", "calibration_data": "data.npz", "output": "out", "target": TARGET}
        paths = {k: self.folder / v if k != "target" else v for k, v in files.items()} | changed
        flags = [(f"--{k.replace('_', '-')}", v) for k, v in paths.items() if k != "model"]
        return self("compile", paths["model"], *(part for flag in flags for part in flag), *options)

    def refused(self, code: int, *options: str | Path, **changed: str | Path) -> str:
        """The error of a compilation that must fail with `code`, and leave nothing that it wrote."""
        before = sorted(self.folder.rglob("*"))
        outcome = self.compile(*options, **changed)
        assert (outcome.code, outcome.stdout) == (code, "")
        assert sorted(self.folder.rglob("*")) == before
        return outcome.error


def write_files(folder: Path) -> None:
    """model.onnx (a convolution and a dense layer) and data.npz (with labels) in `folder`."""
    nodes = [
        node("Conv", "x w b", "a", "conv", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r", "relu"),
        node("Flatten", "r", "f", "flatten"),
        node("MatMul", "f v", "y", "dense"),
    ]
    constants = {"w": normal(0, 4, 3, 3, 3), "b": normal(1, 4), "v": normal(2, 120, 5)}
    save(model(nodes, {"x": ["N", *SHAPE]}, constants), folder)
    np.savez(folder / "data.npz", x=images(), y=np.arange(6) % 5)


def images(count: int = 6) -> np.ndarray:
    """Samples for the small model."""
    return normal(9, count, *SHAPE)
