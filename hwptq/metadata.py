"""metadata.json of an output folder: what `load` needs, checked before anything of it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .backends.program import Library, Machine, Program, Prompt, State, Tensor
from .errors import InputError
from .output_folder import GENERATOR, METADATA, manifest
from .targets.trust import harmless_run

SCHEMA = 5
_LARGEST = 2**40  # bytes of a tensor or an arena
_LARGEST_ALIGNMENT = 1 << 16
_SYMBOLS = ("reset", "prompt")  # functions of a library that only some have
_DTYPE_KINDS = "biufV"  # V: bfloat16 and float8


def write_metadata(
    folder: Path, model: str, target: str, program: Program, bits: Mapping[str, Any] | None = None
) -> None:
    """Write metadata.json beside the files of `program`. bits: of a weight, where they were chosen: those
    asked for and stored, and by layer."""
    library = program.library
    data = {
        "schema": SCHEMA,
        "generator": GENERATOR,
        "model": model,
        "target": target,
        "program": program.program.name if program.program else None,
        "why_none": program.why_none,
        "run": list(program.run),
        "machine": asdict(program.machine),
        "library": {**asdict(library), "file": library.file.name} if library else None,
        "inputs": [asdict(t) for t in program.inputs],
        "outputs": [asdict(t) for t in program.outputs],
        "state": asdict(program.state) if program.state else None,
        "prompt": asdict(program.prompt) if program.prompt else None,
        "bits": bits,
        "files": manifest(folder),
    }
    data["interface"] = _interface(data)
    (folder / METADATA).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def program_of(folder: Path, text: str, trust: bool = False) -> Program:
    """The program that the metadata in `text` describe; trust: with any emulator in front of it.

    Raises InputError where they are not as written."""
    where = folder / METADATA

    def refuse(why: str) -> InputError:
        return InputError(f"{where}: no output folder of hwptq ({why}); compile the model again")

    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise refuse(f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise refuse("no table of values")
    if data.get("schema") != SCHEMA:
        raise refuse(f"schema {data.get('schema')!r}; this hwptq reads {SCHEMA}")
    try:
        return _Reader(folder, trust).program(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        missing = isinstance(error, KeyError)
        raise refuse(f"{error} is missing" if missing else str(error)) from error


class _Reader:
    """Reads the values of one file; what is wrong with one is a ValueError or KeyError."""

    def __init__(self, folder: Path, trust: bool):
        self._folder, self._trust = folder, trust

    def program(self, data: dict[str, Any]) -> Program:
        run = _each(data["run"], "run", _word)
        if not self._trust and not harmless_run(run):
            raise ValueError(f"run: {' '.join(run)!r} is no emulator that hwptq knows; trust=True allows it")
        library = data["library"]
        none = data["program"] is None
        found = Program(
            None if none else self._file(data["program"], "program"),
            _each(data["inputs"], "inputs", _tensor),
            _each(data["outputs"], "outputs", _tensor),
            _machine(data["machine"]),
            run,
            library=None if library is None else self._library(library),
            state=None if data["state"] is None else _state(data["state"]),
            why_none=_word(data["why_none"], "why_none") if none else "",
            prompt=None if data["prompt"] is None else _prompt(data["prompt"]),
        )
        at = found.state.position if found.state else None
        if at is not None and at >= len(found.inputs):
            raise ValueError(f"state.position: there is no input {at}")
        if found.prompt and (at is None or max(at, found.prompt.count) >= len(found.prompt.inputs)):
            raise ValueError("prompt: it has no input for the position, or none for the number of tokens")
        if data["interface"] != _interface(data):
            raise ValueError("its tensors or sizes aren't those that the code was made for")
        return found

    def _file(self, value: Any, what: str) -> Path:
        """A file that lies in the folder itself."""
        name = _word(value, what)
        path = self._folder / name
        if name in (".", "..") or Path(name).name != name or path.is_symlink():
            raise ValueError(f"{what}: {name!r} does not lie in the folder")
        if not path.is_file():
            raise ValueError(f"{what}: there is no file {name!r} in the folder")
        return path

    def _library(self, value: Any) -> Library:
        table = _table(value, "library")
        arena, alignment, behind = (
            _whole(table[key], f"library.{key}") for key in ("arena_bytes", "alignment", "readable_behind")
        )
        found = Library(
            self._file(table["file"], "library.file"), _word(table["symbol"], "library.symbol"), arena,
            alignment, behind, *(_word(table[k], f"library.{k}") if table[k] else "" for k in _SYMBOLS),
        )  # fmt: skip
        if not 0 < found.alignment <= _LARGEST_ALIGNMENT or found.alignment & (found.alignment - 1):
            raise ValueError(f"library.alignment: {found.alignment} is no power of two")
        return found


def _interface(data: dict[str, Any]) -> str:
    """A hash of what the code in the folder takes for granted: with other buffers it would leave them."""
    parts = [data[key] for key in ("inputs", "outputs", "library", "state", "prompt")]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _machine(value: Any) -> Machine:
    table = _table(value, "machine")
    architecture, device = (table[key] for key in ("architecture", "device"))
    if not isinstance(architecture, str) or device not in ("cpu", "gpu"):
        raise ValueError("machine: not as hwptq writes it")
    return Machine(architecture, _each(table["cpu_features"], "machine.cpu_features", _word), device)


def _tensor(value: Any, what: str) -> Tensor:
    table = _table(value, what)
    shape, dtype = _each(table["shape"], f"{what}.shape", _whole), _word(table["dtype"], f"{what}.dtype")
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"{what}.dtype: {dtype!r} is no dtype") from error
    if kind.kind not in _DTYPE_KINDS or prod(shape) * kind.itemsize > _LARGEST:
        raise ValueError(f"{what}: {dtype} {list(shape)} is no tensor of a model")
    return Tensor(_word(table["name"], f"{what}.name"), shape, dtype)


def _state(value: Any) -> State:
    table = _table(value, "state")
    position = table["position"]
    return State(
        _whole(table["nbytes"], "state.nbytes"),
        _each(table["caches"], "state.caches", _tensor),
        None if position is None else _whole(position, "state.position"),
        _whole(table["context"], "state.context"),
    )


def _prompt(value: Any) -> Prompt:
    table = _table(value, "prompt")
    return Prompt(
        _whole(table["tokens"], "prompt.tokens"),
        _each(table["inputs"], "prompt.inputs", _tensor),
        _whole(table["count"], "prompt.count"),
    )


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: no table")
    return value


def _each(value: Any, what: str, read: Callable[[Any, str], Any]) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{what}: no list")
    return tuple(read(item, f"{what}[{i}]") for i, item in enumerate(value))


def _word(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{what}: {value!r} is no text")
    return value


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{what}: {value!r} is no size")
    return value
