"""What computes: the code of this package and of the libraries that it computes with."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType, ModuleType

#: Where the code of this package lies: two of them beside it in a checkout.
_PACKAGES = ("hwptq", "hwptq.passes", "hwptq.targets")
_SUFFIXES = (".py", ".toml", ".c", ".in")
_LIBRARIES = ("apache-tvm", "apache-tvm-ffi", "numpy", "scipy", "onnx", "onnxruntime", "ml-dtypes", "Pillow")


@cache
def versions() -> str:
    """A hash of the source of this package, and the versions of the libraries that results depend on.

    Of the source, because a number of a version says nothing of a checkout that is being worked on.
    """
    found = sha256()
    for package in _PACKAGES:
        folder = Path(next(iter(importlib.import_module(package).__path__)))
        for path in sorted(p for p in folder.rglob("*") if p.suffix in _SUFFIXES and p.is_file()):
            content = path.read_bytes()
            found.update(f"{package} {path.relative_to(folder)} {len(content)}:".encode())
            found.update(content)
    return f"{found.hexdigest()} {' '.join(f'{name}={_version(name)}' for name in _LIBRARIES)}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def extensions() -> list[tuple[str, bytes]]:
    """Name and source of every module outside of this package that has something of it at hand: a calibration
    method, an operator or a template of the user's may be in one."""
    found = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and not _is_ours(name) and any(map(_is_from_us, vars(module).values())):
            with suppress(OSError):
                found.append((name, Path(file).read_bytes()))
    return found


def _is_from_us(value: object) -> bool:
    if isinstance(value, ModuleType):
        return _is_ours(value.__name__)
    name = getattr(value, "__module__", None) if isinstance(value, type | FunctionType) else None
    return isinstance(name, str) and _is_ours(name)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "hwptq"
