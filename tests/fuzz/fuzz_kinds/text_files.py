"""Preprocess files and descriptors: text of TOML with other values, other keys and other bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from bases import convolutions
from case import ROOT, Kind, Run, command, compile_command

from fuzz_kinds.model_files import damaged

_VALUES = (
    "0", "-1", "1e400", "nan", "inf", '"a"', "[]", "[1]", "[1, 2]", "[1, 2, 3]", "[0, 0, 0]", "[nan]", "true",
    "65536", "99999999999999999999999", "[65535, 65535]", "{}", "{ top = 1 }", "{ top = -1 }",
    '{ mode = "x" }', "{ value = 1e39 }", '"NCHW"', '"NHWC"', '"BGR"', "[[1]]", "1.5", "1979-05-27", "8",
    "[8, 8]", "1e-46", "[1e-45, 1, 1]", '""', '"[bold]x[/bold]"', "4", "16", "128", '"int4"', '[["int8"]]',
)  # fmt: skip
_HEADS = ("[x]", "[kernel.a]", "[[x]]", "[op]", "[tvm]", "[", "[a.b.c]")
_LINES = {
    "channels": '"BGR"', "resize": "10", "crop": "8", "pad": "{ top = 1, left = 1 }", "mean": "[1, 2, 3]",
    "std": "[4, 5, 6]", "layout": '"NCHW"',
}  # fmt: skip


def _changed(chance: random.Random, text: str) -> str:
    """The text with another value of a key, another key, a line less or more, or other bytes."""
    lines = text.splitlines() or [""]
    keys = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    place, how = chance.choice(keys or [0]), chance.random()
    key = lines[place].split(" = ")[0]
    if how < 0.5:
        lines[place] = f"{key} = {chance.choice(_VALUES)}"
    elif how < 0.6:
        lines[place] = chance.choice([key[:-1], key + "s", "", '"a\\nb"', "ä", "x.y"]) + " = 1"
    elif how < 0.7:
        del lines[place]
    elif how < 0.8:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    elif how < 0.9:
        heads = [i for i, line in enumerate(lines) if line.startswith("[")] or [0]
        lines[chance.choice(heads)] = chance.choice(
            ["[x]", "[kernel.a]", "[[x]]", "[op]", "[tvm]", "[", "[a.b.c]"]
        )
    else:
        return damaged(chance, text.encode()).decode("utf-8", "replace")
    return "\n".join(lines) + "\n"


class PreprocessFiles(Kind):
    """How stored images become inputs."""

    name = "preprocess"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        base = convolutions()
        onnx.save(base.proto, folder / "model.onnx")
        images = np.random.default_rng(0).integers(0, 256, (4, 10, 12, 3)).astype(np.uint8)
        np.savez(folder / "data.npz", x=images)
        lines = [f"{k} = {v}" for k, v in _LINES.items() if k == "layout" or chance.random() < 0.7]
        text = "\n".join(["[x]", *lines]) + "\n"
        for _ in range(chance.choice([1, 1, 2])):
            text = _changed(chance, text)
        (folder / "preprocess.toml").write_text(text, encoding="utf-8")
        options = ("--preprocess", folder / "preprocess.toml")
        whole = chance.random() < 0.1
        return compile_command(folder / "model.onnx", folder / "data.npz", folder, *options, whole=whole)


class Descriptors(Kind):
    """Descriptors of devices; what is right may be compiled for."""

    name = "descriptors"
    most_lines = 200  # they name all mistakes at once

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        text = chance.choice(sorted((ROOT / "targets").glob("*.toml"))).read_text(encoding="utf-8")
        for _ in range(chance.choice([1, 1, 2, 4])):
            text = _changed(chance, text)
        path = folder / "device.toml"
        path.write_text(text, encoding="utf-8")
        if chance.random() < 0.8:
            return command("targets", "check", path)
        base = convolutions()
        onnx.save(base.proto, folder / "model.onnx")
        data = base.write_data(folder)
        whole = chance.random() < 0.3
        return compile_command(folder / "model.onnx", data, folder, "--target", path, whole=whole)

    def is_error(self, lines: Sequence[str]) -> bool:
        return lines[0].startswith("hwptq: ") and all(line.isprintable() for line in lines)
