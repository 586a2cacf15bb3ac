"""What chooses elements by their values or places."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwptq.ir.dataflow import shape_of

from .writer import Converter, NotExportable, Writer, ints


def _place_of(op: str) -> Converter:
    def convert(w: Writer, call: Any, output: str) -> str:
        if call.attrs.axis is None:
            raise NotExportable(f"{output}: {op} over all axes")
        keepdims = int(call.attrs.keepdims)
        return w.node(op, [w.name(call.args[0])], output, axis=int(call.attrs.axis), keepdims=keepdims)

    return convert


def _triangle(upper: int) -> Converter:
    def convert(w: Writer, call: Any, output: str) -> str:
        diagonal = w.tensor(np.int64(int(call.args[1].value)))
        return w.node("Trilu", [w.name(call.args[0]), diagonal], output, upper=upper)

    return convert


def _gather_elements(w: Writer, call: Any, output: str) -> str:
    return w.node("GatherElements", [w.name(a) for a in call.args], output, axis=int(call.attrs.axis))


def _gather_nd(w: Writer, call: Any, output: str) -> str:
    return w.node("GatherND", [w.name(a) for a in call.args], output, batch_dims=int(call.attrs.batch_dims))


def _tile(w: Writer, call: Any, output: str) -> str:
    repeats, rank = ints(call.attrs.repeats), len(shape_of(call.args[0]))
    if len(repeats) > rank:
        raise NotExportable(f"{output}: tile to more axes")
    whole = np.array([1] * (rank - len(repeats)) + repeats, np.int64)
    return w.node("Tile", [w.name(call.args[0]), w.tensor(whole)], output)


CONVERTERS: dict[str, Converter] = {
    "argmax": _place_of("ArgMax"),
    "argmin": _place_of("ArgMin"),
    "tril": _triangle(0),
    "triu": _triangle(1),
    "gather_elements": _gather_elements,
    "gather_nd": _gather_nd,
    "tile": _tile,
}
