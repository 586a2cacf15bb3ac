"""Output folders that somebody changed: their metadata, or any other file of theirs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bases import attention
from case import Kind, Run

import hwptq
from fuzz_kinds.model_files import damaged

_VALUES: tuple[Any, ...] = (
    None, "", "x", "/bin/true", "../x", ".", 0, -1, 1.5, 2**70, True, [], [1], ["sh", "-c",
    "true"], {}, {"a": 1},
    "é", "float32", "int64", "O", [0], [-1], [2**40, 2**40], 99, "cpu", "\0",
)  # fmt: skip


def _original(place: Path) -> Path:
    """A compiled model, made where none is yet."""
    if not (place / "out").is_dir():
        place.mkdir()
        base = attention()
        onnx.save(base.proto, place / "model.onnx")
        data = base.write_data(place)
        hwptq.compile(place / "model.onnx", "x86-64-avx2", data, output=place / "out", recipe="fast")
    return place / "out"


class Artefacts(Kind):
    """Loaded, and run on a sample."""

    name = "artefacts"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        place = folder / "given"
        shutil.copytree(_original(folder.parents[1] / "original"), place)
        if chance.random() < 0.75:
            path = place / "metadata.json"
            content = json.loads(path.read_text())
            for _ in range(chance.choice([1, 1, 2])):
                _change(chance, content)
            path.write_text(json.dumps(content))
        else:
            _damage(chance, place)
        sample = {name: array[:1] for name, array in attention().data().items()}
        sample["x"] = chance.choice([sample["x"]] * 5 + [sample["x"][0], sample["x"] * np.nan])

        def run() -> None:
            loaded = hwptq.load(place)
            assert loaded.report is not None
            loaded.run(sample)

        return run


def _change(chance: random.Random, content: dict[str, Any]) -> None:
    """Another value, or none, somewhere in the tree."""
    node: Any = content
    while True:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        deeper = node[key]
        if not (isinstance(deeper, dict | list) and deeper) or chance.random() < 0.3:
            break
        node = deeper
    if chance.random() < 0.2:
        del node[key]
    else:
        node[key] = chance.choice(_VALUES)


def _damage(chance: random.Random, place: Path) -> None:
    """A file that is read as data is damaged, gone, or another one (programs and libraries are run as they
    are: what they do then is no matter of hwptq's)."""
    path = place / chance.choice(["metadata.json", "report.json", "golden.npz"])
    if chance.random() < 0.6:
        path.write_bytes(damaged(chance, path.read_bytes()))
        return
    path.unlink()
    if chance.random() < 0.5:
        path.symlink_to(chance.choice(["/dev/null", path.name, "nothing", "report.html"]))
