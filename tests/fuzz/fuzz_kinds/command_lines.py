"""Command lines: options with values that make no sense, or not together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import onnx
from bases import attention, convolutions
from case import Kind, Run, command, compile_command

_WORDS = (
    "", "0", "-1", "1e400", "nan", "a=b", "=", "=1", "x=", "w4a8", "w8a8", "w4a4", "w8a16", "fp8",
    "[", "(", ".*",
    "*", "conv", "weights=1", "weights=1kB", "weights=0.9x", "cycles=0.5x", "macs-int4=70%", "macs-int4=170%",
    "bits=3", "tensor", "channel", "group", "minmax", "mse", "entropy", "percentile", "best", "fast", "top1",
    "os:system", "no.such:function", "math:pi", ":", "é", "99999999999999999999", "x.0=3", "N=1",
    "N=0", "N=99",
    "equalize=on", "equalize=maybe", "rounding=off", "observer=mse", "smooth=on", "\n", "--", "-q",
)  # fmt: skip
_OPTIONS = (
    "--precision", "--budget", "--exclude", "--keep-float", "--axis", "--max-drop", "--metric", "--samples",
    "--calibration-method", "--recipe", "--set", "--weight-granularity", "--threads", "--target",
    "--kv-cache",
    "--tune-cache",
    "--dump-ir", "--preprocess", "--evaluation-data", "--unknown", "--output",
)  # fmt: skip
_FLAGS = ("--lower-ends", "--strict", "--isolate", "--trust-descriptor", "--verbos", "--dry-run")
_TARGETS = (
    ("targets",), ("targets", "show", "x86-64-avx2"), ("targets", "show", "x86"), ("targets", "list"), (),
    ("targets", "check"), ("--version",), ("compile",), ("compile", "--help"), ("nothing",),
    ("targets", "show"),
    ("diagnose", "missing.onnx"), ("targets", "check", "missing.toml"), ("targets", "check", "."), ("-x",),
)  # fmt: skip


class CommandLines(Kind):
    """Any options at all."""

    name = "commands"
    most_lines = 60  # the usage stands above an error of the usage; a command without words is its help

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        if chance.random() < 0.05:
            return command(*chance.choice(_TARGETS))
        base = chance.choice([convolutions, attention])()
        onnx.save(base.proto, folder / "model.onnx")
        options = [chance.choice(_FLAGS) for _ in range(chance.choice([0, 0, 1]))]
        for _ in range(chance.choice([1, 1, 2, 3])):
            option = chance.choice(_OPTIONS)
            word = chance.choice(_WORDS)
            # Folders of any name would be written where the case lies: only ones inside of it.
            inside = option in ("--output", "--dump-ir", "--tune-cache")
            options += [option, folder / "out" if inside else word]
        data = base.write_data(folder)
        return compile_command(folder / "model.onnx", data, folder, *options, whole=chance.random() < 0.1)

    def is_error(self, lines: Sequence[str]) -> bool:
        return (len(lines) == 1 and super().is_error(lines)) or "Usage:" in lines[0]
