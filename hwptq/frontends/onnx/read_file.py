"""Reading an ONNX file: what isn't one, and what is wrong with one, by the names of the file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import Message

from hwptq.errors import InputError

from .weights.external_weights import array_of, load_model

_EXPORT = "export the model as ONNX"
#: The first bytes of other files, from `offset` on, and what to do with those.
_OTHERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (
        0,
        b"PK\x03\x04",
        f"is a zip file, as PyTorch's .pt and Keras's .keras; {_EXPORT} (torch.onnx.export)",
    ),
    (0, b"\x89HDF", f"is an HDF5 file of Keras; {_EXPORT} (tf2onnx)"),
    (4, b"TFL3", f"is a model of TensorFlow Lite; {_EXPORT} (tf2onnx --tflite)"),
    (4, b"ORTM", "is in the format of ONNX Runtime; give the .onnx file that it was made from"),
    (0, b"\x80\x02", f"is a pickled model, as PyTorch's old .pt are; {_EXPORT} (torch.onnx.export)"),
    (0, b"\x93NUMPY", "holds an array; the model comes first, data with --calibration-data"),
    (0, b"\x7fELF", "is a program"),
    (0, b"<", "is text; for OpenVINO's .xml, give the .onnx file that it was made from"),
    (0, b"{", "is JSON"),
)
_MOST_SHOWN = 300  # characters of a text of ONNX's


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model in a file, checked. Raises InputError."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of an ONNX model")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an ONNX model")
    _refuse_others(path)
    try:
        proto = load_model(path)
    except Exception as error:
        said = one_line(error)
        raise InputError(f"{path}: not a readable ONNX model: {said}; give an .onnx file, whole") from error
    return proto


def check_onnx(path: str, proto: onnx.ModelProto, check: Callable[[onnx.ModelProto], None]) -> None:
    """Raise InputError where a model is not well formed; check: what ONNX finds."""
    problem = next(itertools.chain(_no_texts(proto), _problems(proto.graph)), None)
    if problem:
        raise InputError(f"{path}: {problem}")
    try:
        check(proto)
    except Exception as error:
        raise InputError(f"{path}: not a readable ONNX model: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """What an exception says, in one line that is not too long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"


def _refuse_others(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise InputError(f"{path}: not a readable ONNX model: the file is empty")
    for offset, magic, what in _OTHERS:
        if start[offset:].startswith(magic):
            raise InputError(f"{path}: not an ONNX model: it {what}")


def _no_texts(proto: onnx.ModelProto) -> Iterator[str]:
    """Texts that are no UTF-8: protobuf gives their bytes, which code takes for texts."""
    waiting: list[Message] = [proto]
    while waiting:
        for field, value in waiting.pop().ListFields():
            if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
                continue
            for part in [value] if isinstance(value, str | bytes | Message) else value:
                if isinstance(part, Message):
                    waiting.append(part)
                elif isinstance(part, bytes):
                    yield f"{field.name} {part!r} is no text in UTF-8; export the model anew"


def _problems(graph: onnx.GraphProto) -> Iterator[str]:
    yield from _wrong_inputs(graph)
    yield from _wrong_constants(graph)
    yield from _dangling(graph)
    yield from _absent_operands(graph)


def _wrong_inputs(graph: onnx.GraphProto) -> Iterator[str]:
    for value in graph.input:
        if not value.type.HasField("tensor_type"):
            yield f"input {value.name!r} is no tensor; only tensors can be inputs"
            continue
        number = value.type.tensor_type.elem_type
        if number not in onnx.TensorProto.DataType.values() or not number:
            yield f"input {value.name!r}: element type {number} is not known to ONNX; export the model anew"
        elif number in (onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
            name = onnx.TensorProto.DataType.Name(number).lower()
            yield f"input {value.name!r} holds {name}; only numbers and truth values can be inputs"


def _wrong_constants(graph: onnx.GraphProto) -> Iterator[str]:
    for tensor in graph.initializer:
        try:
            array_of(tensor)
        except Exception as error:
            yield f"constant {tensor.name!r} of shape {list(tensor.dims)}: {one_line(error)}"


def _dangling(graph: onnx.GraphProto) -> Iterator[str]:
    """Nodes that read what no node before them gives."""
    givers = {name: node for node in graph.node for name in node.output}
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer} | {""}
    for node in graph.node:
        for name in node.input:
            if name not in known:
                why = "which a later node gives: sort the nodes" if name in givers else "which nothing gives"
                yield f"{node_name(node)} reads {name!r}, {why}"
        known.update(node.output)


def _absent_operands(graph: onnx.GraphProto) -> Iterator[str]:
    """Nodes that lack one of any number of operands, which TVM would read as if it were there."""
    for node in graph.node:
        formal = list(onnx.defs.get_schema(node.op_type, "").inputs) if _is_standard(node) else []
        if formal and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic:
            for place, name in enumerate(node.input):
                if place >= len(formal) - 1 and not name:
                    yield f"{node_name(node)}: operand {place} has no name; name what it reads"


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type, "")


def node_name(node: onnx.NodeProto) -> str:
    """A node as a message calls it: its name, or that of its first output."""
    return f"node {node.name or next(iter(node.output), '')!r} ({node.op_type})"
