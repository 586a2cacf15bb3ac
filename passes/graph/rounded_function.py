"""A float function beside its integers: which of its layers and tables have rounded weights by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm

from hwptq.evaluate.interpret import Interpreter
from hwptq.evaluate.own_texts import own_texts, predicts_next
from hwptq.formats import INT8, format_of
from hwptq.gradients.program import Substitute
from hwptq.gradients.rounded_table import RoundedTable
from hwptq.ir.dataflow import shape_of
from hwptq.ir.provenance import Part, origins
from hwptq.quant.latent_rows import LatentRows

from .group_layers import GroupLayer, group_layers, looked_up, row_values

Sample = dict[str, np.ndarray]


@dataclass(frozen=True)
class RoundedFunction:
    """What has rounded weights in a float function, by var.

    trained: layers of less than 8 bits whose rows are their own; tied: look-ups in rows of less than 8 bits,
    and the layer that has the same rows.
    """

    func: Any
    layers: Mapping[Any, GroupLayer]
    tables: Mapping[Any, RoundedTable]
    trained: frozenset[Any]
    tied: Mapping[Any, Any]

    @classmethod
    def of(cls, float_module: tvm.IRModule, integer: tvm.IRModule, function: str) -> RoundedFunction:
        """That of a function whose integers are given."""
        func = float_module[function]
        layers = {layer.float_var: layer for layer in group_layers(float_module, integer, function)}
        rows, named = looked_up(integer, function), origins(func)
        tables = {
            var: RoundedTable(row_values(rows[o.label]))
            for var, o in named.items()
            if o.part is Part.RESULT and o.label in rows
        }
        trained = {
            var
            for var, layer in layers.items()
            if format_of(layer.rows.weight).bits < INT8.bits and layer.rows.zeros is None and layer.can_change
        }
        tied = {
            var: other
            for var in tables
            for other, layer in layers.items()
            if layer.tied and format_of(layer.rows.weight).bits < INT8.bits
            if np.array_equal(layer.rows.codes, rows[named[var].label].codes)
        }
        return cls(func, layers, tables, frozenset(trained), tied)

    @property
    def vars(self) -> set[Any]:
        """All of them."""
        return {*self.layers, *self.tables}

    def substitute(self, var: Any) -> Substitute:
        """What stands for one."""
        if var in self.tables:
            return self.tables[var]
        layer = self.layers[var]
        return LatentRows(layer.rows, layer.weight.T)


def own_samples(interpreter: Interpreter, rounded: RoundedFunction, samples: list[Sample]) -> list[Sample]:
    """As many texts as there are samples that a model writes, where it is one that writes texts."""
    if not writes_texts(interpreter, rounded, samples):
        return []
    (name,) = (str(p.name) for p in interpreter.func.params)
    return own_texts(interpreter, samples, name)


def writes_texts(interpreter: Interpreter, rounded: RoundedFunction, samples: list[Sample]) -> bool:
    """Whether the only input is tokens of a table, and the only output the likelihood of each next one."""
    names = [str(p.name) for p in interpreter.func.params]
    words = {len(table.values) for table in rounded.tables.values()}
    if len(names) != 1 or _result_words(interpreter) not in words:
        return False
    return samples[0][names[0]].dtype.kind == "i" and predicts_next(interpreter, samples[0], names[0])


def _result_words(interpreter: Interpreter) -> int | None:
    """The length of the rows of the only output."""
    result = interpreter.func.body.body
    return None if hasattr(result, "fields") else shape_of(result)[-1]
