"""Descriptor files as one merged table: TOML, `extends`, and which file each key was written in."""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwptq.errors import InputError

from .convert import MAX_STRING, element_path
from .fields.problems import Problems, join, show, suggest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parent
MAX_BYTES = 2**20
MAX_LINE = 2000  # characters; a dotted key of a million parts would take the parser minutes
MAX_DEPTH = 8  # of nested tables and lists
MAX_EXTENDS = 8  # files in a chain

Table = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A descriptor with all that it extends merged in."""

    table: Table
    problems: Problems
    shipped: bool  # whether every file of it comes with hwptq


def target_names() -> list[str]:
    """The names of the shipped descriptors."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name_or_path: str | Path) -> Path:
    """The file of a target name, or the path itself; InputError where there is no such file."""
    text = str(name_or_path)
    if isinstance(name_or_path, str) and is_name(text):
        if text in target_names():
            return FOLDER / f"{text}.toml"
        names = target_names()
        hint = suggest(text, names)
        listed = "" if hint.startswith("known") else f"; known: {', '.join(names)}"
        raise InputError(f"unknown target {show(text)} ({hint}{listed}; or give the path of a .toml file)")
    return Path(text)


def read_source(path: Path) -> Source:
    """Read a descriptor and everything it extends; only a wrong `extends` raises at once."""
    problems = Problems(str(path))
    tables: list[tuple[Table, Path]] = []
    seen: list[Path] = []
    following: Path | None = path
    while following is not None:
        table = parse(following)
        tables.append((table, following))
        seen.append(following.resolve())
        following = _base(table.pop("extends", None), following, seen, problems)
    problems.raise_any()  # without its base, nearly every key would be missing
    merged: Table = {}
    for table, file in reversed(tables):
        _note_duplicates(table, file, problems)
        _note_inherited_identity(table, file, problems)
        merged = _drop_unused(_merge(merged, table, "", str(file), problems.origins), table)
    return Source(merged, problems, all(is_shipped(file) for file in seen))


def is_shipped(path: Path) -> bool:
    """Whether the file comes with hwptq."""
    return path.resolve().parent == FOLDER


def parse(path: Path) -> Table:
    """The table of one TOML file; InputError where it can't be read."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: not a file")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except (OSError, ValueError) as error:
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _reason(error)
        raise InputError(f"{path}: can't read the descriptor: {what}") from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES} bytes: this is no descriptor")
    if any(len(line) > MAX_LINE for line in text.splitlines()):
        raise InputError(f"{path}: has a line of more than {MAX_LINE} characters: this is no descriptor")
    try:
        table = tomllib.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: lists or tables are nested too deeply") from error
    except ValueError as error:
        raise InputError(f"{path}: not a TOML file: {' '.join(str(error).split())[:200]}") from error
    if _deeper_than(table, MAX_DEPTH):
        raise InputError(f"{path}: lists or tables are nested more than {MAX_DEPTH} deep")
    return table


def is_name(text: str) -> bool:
    return "/" not in text and "\\" not in text and not text.endswith(".toml")


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _deeper_than(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in items)


def _base(extends: Any, file: Path, seen: list[Path], problems: Problems) -> Path | None:
    """The file that `extends` names, None where there is none or it can't be used."""
    if extends is None:
        return None
    problems.origins.setdefault("extends", str(file))
    if not isinstance(extends, str) or not extends:
        problems.add(
            "extends", f"must be the name of a target or the path of a .toml file, not {show(extends)}"
        )
        return None
    if is_name(extends):
        if extends not in target_names():
            problems.add("extends", f"unknown target {show(extends)} ({suggest(extends, target_names())})")
            return None
        base = FOLDER / f"{extends}.toml"
    else:
        base = file.parent / extends
    return base if _usable(base, extends, seen, problems) else None


def _usable(base: Path, extends: str, seen: list[Path], problems: Problems) -> bool:
    if not _is_toml_file(base, extends):
        problems.add("extends", f"no such .toml file: {show(extends)}")
    elif base.resolve() in seen:
        problems.add("extends", f"{show(extends)} extends this file in turn: a cycle")
    elif len(seen) >= MAX_EXTENDS:
        problems.add("extends", f"more than {MAX_EXTENDS} files in a chain")
    else:
        return True
    return False


def _is_toml_file(base: Path, extends: str) -> bool:
    try:
        return base.suffix == ".toml" and len(extends) <= MAX_STRING and base.is_file()
    except (OSError, ValueError):  # no permission; a NUL in the path
        return False


def _by_op(rules: Any) -> dict[str, Table] | None:
    """The rules of `[[op]]` by operator kind; None where they aren't well-formed."""
    if isinstance(rules, list) and all(isinstance(r, dict) and isinstance(r.get("op"), str) for r in rules):
        return {rule["op"]: rule for rule in rules}
    return None


def _note_duplicates(table: Table, file: Path, problems: Problems) -> None:
    rules, seen = table.get("op"), set()
    for i, rule in enumerate(rules if isinstance(rules, list) else []):
        name = rule.get("op") if isinstance(rule, dict) else None
        if isinstance(name, str) and name in seen:
            where = element_path("op", i, rule)
            problems.origins.setdefault(where, str(file))
            problems.add(where, "this operator has more than one [[op]] table: keep one")
        seen.add(name if isinstance(name, str) else None)


def _note_inherited_identity(table: Table, file: Path, problems: Problems) -> None:
    """Every file says which format it is written in and what it describes: these are not inherited."""
    for key, meaning in (("schema", "the version of this format"), ("name", "the device in one word")):
        if key not in table:
            problems.origins[key] = str(file)
            problems.add(key, f"missing: {meaning}, also where a file extends another")


def _merge(base: Any, child: Any, path: str, file: str, origins: dict[str, str]) -> Any:
    """`child` over `base`: tables key by key, [[op]] operator by operator, all else replaced."""
    old_rules, new_rules = (_by_op(side) if path == "op" else None for side in (base, child))
    if new_rules is not None:
        merged = dict(old_rules or {})
        for name, rule in new_rules.items():
            merged[name] = _merge(merged.get(name, {}), rule, element_path("op", 0, rule), file, origins)
        return list(merged.values())
    origins[path] = file
    if not isinstance(base, dict) or not isinstance(child, dict):
        base = {}
    if not isinstance(child, dict):
        return child
    if "template" in child and child["template"] != base.get("template"):
        base = {}
    merged = dict(base)
    for key, value in child.items():
        merged[key] = _merge(merged.get(key), value, join(path, key), file, origins)
    return merged


def _drop_unused(merged: Table, child: Table) -> Table:
    """Without the inherited kernels that no operator uses any more."""
    kernels, own, rules = merged.get("kernel"), child.get("kernel"), _by_op(merged.get("op"))
    if not isinstance(kernels, dict) or rules is None:
        return merged
    named = (rule.get(key) for rule in rules.values() for key in ("kernel", "otherwise"))
    wanted = {name for name in named if isinstance(name, str)}
    wanted |= set(own) if isinstance(own, dict) else set()
    return {**merged, "kernel": {name: data for name, data in kernels.items() if name in wanted}}
