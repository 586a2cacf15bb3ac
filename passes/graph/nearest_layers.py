"""The layers nearest to tensors, with only quantized nodes between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwptq.ir.dataflow import data_of
from hwptq.targets.op_kinds import WEIGHTED_OPS


@dataclass(frozen=True)
class NearestLayers:
    """values: var -> its expression; kinds: var -> operator kind, None of what stays in float;
    readers: var -> the vars that read it, None among them where it is a result of the function."""

    values: Mapping[Any, Any]
    kinds: Mapping[Any, str | None]
    readers: Mapping[Any, Sequence[Any]]

    def behind(self, tensors: Iterable[Any]) -> list[Any]:
        """Those that tensors are made of, themselves included."""
        return self._nearest(tensors, lambda var: data_of(self.values[var]) if var in self.values else [])

    def before(self, tensors: Iterable[Any]) -> list[Any]:
        """Those that are made of tensors."""
        return self._nearest(tensors, lambda var: [u for u in self.readers.get(var, []) if u is not None])

    def _nearest(self, tensors: Iterable[Any], onward: Callable[[Any], Iterable[Any]]) -> list[Any]:
        found, seen, waiting = [], set(tensors), list(tensors)
        while waiting:
            var = waiting.pop()
            if self.kinds.get(var) in WEIGHTED_OPS:
                found.append(var)
            elif self.kinds.get(var) is not None:
                waiting += [v for v in onward(var) if v not in seen]
                seen |= set(waiting)
        return found
