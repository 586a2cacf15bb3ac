"""What entries hold: modules, numbers, states of arrays; nothing that could run when it is read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import tvm

T = TypeVar("T")


@dataclass(frozen=True)
class Content(Generic[T]):
    """How a result becomes bytes and back. `read` raises ValueError for bytes that are none."""

    write: Callable[[T], bytes]
    read: Callable[[bytes], T]


#: A TVM module with its constants, attributes and spans.
MODULE: Content[tvm.IRModule] = Content(
    lambda module: tvm.ir.save_json(module).encode(), lambda data: tvm.ir.load_json(data.decode())
)
#: What JSON can say, numbers to the bit.
JSON: Content[Any] = Content(lambda value: json.dumps(value).encode(), json.loads)
#: Bytes as they are.
BYTES: Content[bytes] = Content(bytes, bytes)


def states(classes: Iterable[type]) -> Content[Any]:
    """Mappings, sequences, numbers, arrays, and dataclasses of `classes`, nested in any way.

    Writing another value raises TypeError.
    """
    known = {cls.__qualname__: cls for cls in classes}

    def write(value: Any) -> bytes:
        arrays: list[np.ndarray] = []
        tree = json.dumps(_tree(value, arrays, known))
        stream = io.BytesIO()
        np.savez(stream, np.frombuffer(tree.encode(), np.uint8), *arrays)
        return stream.getvalue()

    def read(data: bytes) -> Any:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            tree, *arrays = (stored[f"arr_{i}"] for i in range(len(stored.files)))
        return _value(json.loads(tree.tobytes().decode()), arrays, known)

    return Content(write, read)


def _tree(value: Any, arrays: list[np.ndarray], known: Mapping[str, type]) -> Any:
    """As JSON, with arrays by their number."""

    def inner(item: Any) -> Any:
        return _tree(item, arrays, known)

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return {"integers": [hex(v) for v in value.ravel().tolist()], "shape": list(value.shape)}
    if isinstance(value, np.ndarray | np.generic):
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, list | tuple):
        return {"items": [inner(item) for item in value], "tuple": isinstance(value, tuple)}
    if isinstance(value, Mapping):
        return {"mapping": [[inner(k), inner(v)] for k, v in value.items()]}
    if is_dataclass(value) and known.get(type(value).__qualname__) is type(value):
        content = {f.name: inner(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"of": type(value).__qualname__, "fields": content}
    raise TypeError(f"a {type(value).__qualname__} is not kept")


def _value(tree: Any, arrays: list[np.ndarray], known: Mapping[str, type]) -> Any:
    def inner(item: Any) -> Any:
        return _value(item, arrays, known)

    if not isinstance(tree, dict):
        return tree
    if "integers" in tree:
        numbers = np.empty(len(tree["integers"]), dtype=object)
        numbers[:] = [int(text, 16) for text in tree["integers"]]
        return numbers.reshape(tree["shape"])
    if "array" in tree:
        return arrays[tree["array"]]
    if "items" in tree:
        return (tuple if tree["tuple"] else list)(inner(item) for item in tree["items"])
    if "mapping" in tree:
        return {inner(k): inner(v) for k, v in tree["mapping"]}
    return known[tree["of"]](**{name: inner(item) for name, item in tree["fields"].items()})
