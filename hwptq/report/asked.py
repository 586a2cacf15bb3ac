"""What was asked for: the command, the options, and which model and data they were, by their hashes."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from inspect import isfunction
from pathlib import Path
from typing import Any

from hwptq import __version__
from hwptq.options import Options

_PACKAGES = ("apache-tvm", "numpy", "onnx")
_BLOCK = 2**20
_MOST_BYTES = 2**32


def asked(model: Any, target: str | Path, data: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The object `asked` of the report. data: calibration, evaluation and preprocess as they were given."""
    return {
        "command": shlex.join(options.command) or None,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": _source(model),
        "target": str(target),
        "data": {key: _source(value) for key, value in data.items() if value is not None},
        "options": changed(options),
        "versions": _versions(),
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def changed(options: Options) -> dict[str, str]:
    """The options that are not as they are if nobody says a word."""
    usual = Options()
    given = {f.name: (getattr(options, f.name), getattr(usual, f.name)) for f in fields(options)}
    return {
        name: _word(value, default)
        for name, (value, default) in given.items()
        if value != default and name != "command"
    }


def _word(value: Any, default: Any) -> str:
    """A value; of a table of settings those that are not the default's."""
    if type(value) is type(default) and is_dataclass(value):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return ", ".join(f"{name}={v}" for name, v in pairs if v != getattr(default, name))
    return f"{value.__module__}:{value.__qualname__}" if isfunction(value) else str(value)


def _source(given: Any) -> dict[str, Any]:
    """Where something came from, and the SHA-256 of its file, or of all files of its folder; None where they
    are too many bytes, and of what is no file."""
    path = Path(given) if isinstance(given, str | Path) else None
    if path is None:
        return {"from": f"an object of type {type(given).__name__}", "sha256": None}
    if path.is_file():
        return {"from": str(path), "sha256": _digest([path])}
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    return {"from": str(path), "sha256": _digest(files) if files else None}


def _digest(files: Sequence[Path]) -> str | None:
    """SHA-256 of the bytes of files, one behind the other."""
    if sum(file.stat().st_size for file in files) > _MOST_BYTES:
        return None
    found = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                found.update(block)
    return found.hexdigest()


def _versions() -> dict[str, str]:
    found = {"hwptq": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # TVM may be built by hand
            continue
    return found
