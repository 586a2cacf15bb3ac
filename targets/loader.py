"""Read a target descriptor: strict, and with all that is wrong said at once."""

from __future__ import annotations

from pathlib import Path

from .checks import check_fields
from .convert import read_fields
from .llvm_checks import check_llvm
from .read import find, read_source, target_names
from .schema import Descriptor
from .trust import check_trust

__all__ = ["load_target", "target_names"]


def load_target(name_or_path: str | Path, trust: bool = False) -> Descriptor:
    """The descriptor of a shipped target, or of a TOML file; InputError names everything wrong with it.

    One line per problem: `file: key.path: what is wrong (did you mean ...?)`. A file that doesn't come
    with hwptq may name only known programs with harmless arguments, unless `trust` is given, and is checked
    against LLVM, which imports TVM. (The shipped ones are checked by the tests.)
    """
    source = read_source(find(name_or_path))
    problems = source.problems
    values = read_fields(Descriptor, source.table, "", problems)
    kernels = source.table.get("kernel")
    check_fields(values, kernels if isinstance(kernels, dict) else (), problems)
    if not source.shipped:
        if not trust:
            check_trust(values, problems)
        check_llvm(values, problems)
    problems.raise_any()
    return Descriptor(**values)
