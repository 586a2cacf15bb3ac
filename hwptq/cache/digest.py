"""What a result follows from, as a hash: equal values give equal hashes in every process, others do not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import tvm


class NoDigest(TypeError):
    """A value whose hash would not say all that it does, such as a function."""


@runtime_checkable
class Identified(Protocol):
    """A value that says itself what it is known by; None where nothing is."""

    @property
    def identity(self) -> str | None: ...


def digest(*values: Any) -> str:
    """SHA-256 of values, in hexadecimal digits. Raises NoDigest.

    Numbers, text, bytes, arrays, TVM modules, dataclasses, what is Identified, and collections of these. A
    class stands for the source of the file that defines it.
    """
    found = sha256()
    _feed(values, found.update)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises NoDigest where it can't be read."""
    found = sha256()
    try:
        with path.open("rb") as stream:
            while part := stream.read(1 << 20):
                found.update(part)
    except OSError as error:
        raise NoDigest(f"{path} can't be read") from error
    return found.hexdigest()


def _feed(value: Any, update: Callable[[bytes], None]) -> None:
    """Kind, length and content of a value, so that no two values give the same bytes."""

    def put(kind: str, content: bytes) -> None:
        update(f"{kind} {len(content)}:".encode())
        update(content)

    def put_all(kind: str, items: Iterable[Any]) -> None:
        listed = list(items)
        update(f"{kind} {len(listed)}:".encode())
        for item in listed:
            _feed(item, update)

    if value is None or isinstance(value, bool | int | float | complex):
        put(type(value).__name__, repr(value).encode())
    elif isinstance(value, str | Path):
        put(
            type(value).__name__ if isinstance(value, str) else "path",
            str(value).encode("utf-8", "surrogateescape"),
        )
    elif isinstance(value, bytes):
        put("bytes", value)
    elif isinstance(value, Enum):
        put_all("enum", (type(value).__qualname__, value.name))
    elif isinstance(value, np.ndarray | np.generic):
        _feed_array(np.asarray(value), put, put_all)
    elif isinstance(value, Mapping):
        put_all("mapping", value.items())  # in its order, which may matter
    elif isinstance(value, set | frozenset):
        put_all("set", sorted(digest(item) for item in value))
    elif isinstance(value, list | tuple):
        put_all("sequence", value)
    elif isinstance(value, type):
        put_all("class", (value.__module__, value.__qualname__, _source(value)))
    elif isinstance(value, Identified):
        if value.identity is None:
            raise NoDigest(f"nothing is known of {type(value).__qualname__}")
        put_all("identified", (type(value).__qualname__, value.identity))
    elif is_dataclass(value):
        put_all(
            "dataclass", (type(value).__qualname__, {f.name: getattr(value, f.name) for f in fields(value)})
        )
    elif isinstance(value, tvm.IRModule | tvm.ir.BaseFunc):
        put("tvm", tvm.ir.save_json(value).encode())
    else:
        raise NoDigest(f"no hash says what a {type(value).__qualname__} does")


def _feed_array(array: np.ndarray, put: Any, put_all: Any) -> None:
    if array.dtype.hasobject:
        put_all("objects", (list(array.shape), array.ravel().tolist()))
        return
    put_all("array", (array.dtype.str, list(array.shape)))
    put("data", np.ascontiguousarray(array).tobytes())


def _source(cls: type) -> str:
    try:
        return Path(inspect.getfile(cls)).read_text(encoding="utf-8")
    except (OSError, TypeError) as error:
        raise NoDigest(f"the source of {cls.__qualname__} can't be read") from error
