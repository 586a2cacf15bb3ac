"""Read a target descriptor: strict, and with all that is wrong said at once."""

from __future__ import annotations

from pathlib import Path

from .convert import read_fields
from .read import find, read_source, target_names
from .schema import Descriptor

__all__ = ["load_target", "target_names"]


def load_target(name_or_path: str | Path, trust: bool = False) -> Descriptor:
    """The descriptor of a shipped target, or of a TOML file; InputError names everything wrong with it.

    One line per problem: `file: key.path: what is wrong (did you mean ...?)`. A file that doesn't come
    with hwptq may name only known programs with harmless arguments, unless `trust` is given.
    """
    source = read_source(find(name_or_path))
    problems = source.problems
    values = read_fields(Descriptor, source.table, "", problems)
    problems.raise_any()
    return Descriptor(**values)
