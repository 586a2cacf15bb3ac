"""ONNX files that aren't as they should be: in their bytes, in any field, in what fields mean."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bases import BASES
from case import Kind, Run, compile_command
from onnx import numpy_helper

_INTEGERS = (
    0, -1, 1, 2, 3, 5, 7, 16, 99, 1000, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, -2,
    -(2**31), -(2**63),
)  # fmt: skip
_WORDS = (
    "", "a b", "x\ny", "é☃", "n" * 3000, "[bold]", '*/ #include "f" /*', "../../x", "int", "main", "x", "y",
    "output_0", "%s%n", "{{7*7}}", "\\", "<script>", "$(id)", "metadata.json", "lv", "0", "-x",
)  # fmt: skip
_OPERATORS = (
    "Conv", "Gemm", "MatMul", "Relu", "Softmax", "LSTM", "GRU", "Loop", "If", "NonZero", "TopK", "Einsum",
    "ConvTranspose", "Gather", "Shape", "Reshape", "Transpose", "Flatten", "Identity", "Cast", "ReduceMean",
    "Div", "Sqrt", "Log", "Expand", "Tile", "Where", "Squeeze", "Unsqueeze", "QuantizeLinear", "Dropout",
    "DequantizeLinear", "InstanceNormalization", "LRN", "HardSwish", "DepthToSpace", "Gelu", "CumSum",
    "ScatterND", "RandomNormal", "StringNormalizer", "SequenceEmpty", "Foo", "ConvInteger", "Upsample",
    "Constant", "ArgMax", "Pow", "Mod", "Not", "Split", "Concat", "GridSample", "RoiAlign", "OneHot", "Trilu",
)  # fmt: skip
_FLOATS = (0.0, -1.0, 1e-38, 1e30, float("inf"), float("nan"))


def _messages(message: Any) -> Iterator[Any]:
    """A message and all those inside of it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if hasattr(value, "__len__") else [value]:
                yield from _messages(inner)


def _any_field(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Change one field of one message, whichever it is."""
    message = chance.choice([m for m in _messages(proto) if m.ListFields()])
    field, value = chance.choice(message.ListFields())
    if chance.random() < 0.15:
        message.ClearField(field.name)
    elif hasattr(value, "__len__") and not isinstance(value, str | bytes):
        _list(chance, value)
    elif not field.message_type:
        setattr(message, field.name, _other(chance, value))


def _list(chance: random.Random, values: Any) -> None:
    """Drop, repeat or change an element of a repeated field, or mix them."""
    place, how = chance.randrange(len(values)), chance.random()
    if how < 0.25:
        del values[place]
    elif how < 0.5:
        values.append(values[place])
    elif how < 0.6:
        mixed = chance.sample(list(values), len(values))
        del values[:]
        values.extend(mixed)
    elif isinstance(values[place], int | float | str | bytes):
        values[place] = _other(chance, values[place])


def _other(chance: random.Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, str):
        return chance.choice(_WORDS)
    if isinstance(value, bytes):
        return chance.choice([b"", value[:-1], value + b"\0" * 4, value[: len(value) // 2], b"\xff" * 8])
    if isinstance(value, float):
        return chance.choice(_FLOATS)
    wide = chance.choice(_INTEGERS)
    return wide if abs(wide) < 2**31 or chance.random() < 0.5 else value + 1


def _rename(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Call a tensor otherwise wherever it stands."""
    graph = proto.graph
    lists = [names for n in graph.node for names in (n.input, n.output)]
    old, new = chance.choice([n for names in lists for n in names if n]), chance.choice(_WORDS)
    for names in lists:
        for i, name in enumerate(names):
            names[i] = new if name == old else name
    for value in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        value.name = new if value.name == old else value.name


def _operator(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Make a node one of another operator."""
    chance.choice(list(proto.graph.node)).op_type = chance.choice(_OPERATORS)


def _reconnect(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Let a node read another tensor, which may be one that it makes."""
    graph = proto.graph
    names = [o for n in graph.node for o in n.output] + [t.name for t in graph.initializer] + [""]
    reader = chance.choice([n for n in graph.node if n.input])
    reader.input[chance.randrange(len(reader.input))] = chance.choice(names)


def _constant(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Give a constant another shape, other values or another dtype."""
    tensor = chance.choice(list(proto.graph.initializer))
    if tensor.external_data:  # of a mutation before: the file need not be there
        return
    array = numpy_helper.to_array(tensor).copy()
    how = chance.randrange(3)
    if how == 0 and array.size:
        shapes = [array.reshape(-1), array[None], array.T, array[..., :1] if array.ndim else array]
        array = chance.choice([*shapes, np.repeat(array.reshape(-1), 3), array.reshape(-1)[:0]])
    elif how == 1 and array.size:
        number = chance.choice(_FLOATS if array.dtype.kind == "f" else _INTEGERS)
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        number = min(max(number, limits.min), limits.max) if limits else number
        array.reshape(-1)[: chance.choice([1, array.size])] = number
    else:
        with np.errstate(all="ignore"):
            array = array.astype(chance.choice(["f8", "f2", "i1", "i8", "i4", "u1", "?", "c8"]))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def _shape(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Give an input or an output another shape or dtype."""
    value = chance.choice([*proto.graph.input, *proto.graph.output])
    dims = value.type.tensor_type.shape.dim
    how = chance.randrange(4)
    if how == 0 or not dims:
        dims.add().dim_value = chance.choice(_INTEGERS)
    elif how == 1:
        chance.choice(dims).dim_param = chance.choice(_WORDS)
    elif how == 2:
        value.type.tensor_type.elem_type = chance.choice([0, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 99])
    else:
        chance.choice(dims).dim_value = chance.choice(_INTEGERS)


def _external(chance: random.Random, proto: onnx.ModelProto) -> None:
    """Have a constant's values in another file."""
    tensor = chance.choice(list(proto.graph.initializer))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    places = ["../x.bin", "/etc/hostname", "missing.bin", "/dev/zero", "", "data.npz", ".", "model.onnx"]
    entries = {"location": places, "offset": ["0", "-1", "9999999999", "a"], "length": ["4", "-5", "x"]}
    for key, values in entries.items():
        if key == "location" or chance.random() < 0.6:
            tensor.external_data.add(key=key, value=chance.choice(values))


_MUTATIONS: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    _any_field, _any_field, _any_field, _rename, _operator, _reconnect, _constant, _shape, _external,
)  # fmt: skip


class ModelFields(Kind):
    """A file that is a message, some of whose fields aren't as they were."""

    name = "model-fields"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        base = chance.choice(BASES)()
        for _ in range(chance.choice([1, 1, 1, 2, 3])):
            if base.proto.graph.node and base.proto.graph.initializer:
                _mutate(chance, base.proto)
        path = folder / "model.onnx"
        path.write_bytes(base.proto.SerializeToString())
        return compile_command(path, base.write_data(folder), folder, whole=chance.random() < 0.1)


def _mutate(chance: random.Random, proto: onnx.ModelProto) -> None:
    """One mutation; one that the classes of messages themselves refuse changes nothing."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        chance.choice(_MUTATIONS)(chance, copy)
        proto.CopyFrom(copy)
    except (ValueError, TypeError, IndexError, OverflowError):
        return


class ModelBytes(Kind):
    """A file whose bytes are flipped, cut off or repeated."""

    name = "model-bytes"

    def prepare(self, chance: random.Random, folder: Path) -> Run:
        base = chance.choice(BASES)()
        path = folder / "model.onnx"
        path.write_bytes(damaged(chance, base.proto.SerializeToString()))
        return compile_command(path, base.write_data(folder), folder, whole=chance.random() < 0.1)


def damaged(chance: random.Random, content: bytes) -> bytes:
    """The bytes of a file, some of them others."""
    data, how = bytearray(content), chance.random()
    if how < 0.5:
        for _ in range(chance.choice([1, 2, 8, 40])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif how < 0.65:
        del data[chance.randrange(len(data)) :]
    elif how < 0.8:
        start, end, size = chance.randrange(len(data)), chance.randrange(len(data)), chance.randrange(200)
        data[start : start + size] = data[end : end + size]
    else:
        for _ in range(3):
            data[chance.randrange(min(300, len(data)))] = chance.randrange(256)
    return bytes(data)
