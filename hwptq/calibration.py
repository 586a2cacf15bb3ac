"""calibrate: run a float module over data, sample by sample, and collect what each tensor holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import tvm

from hwptq.cache.digest import digest
from hwptq.data.dataset import Dataset
from hwptq.formats import INT8, Format
from hwptq.workers.workers import Here, Task, Workers, shards

from .errors import InputError
from .evaluate.hidden_tokens import SEARCHED, HiddenTokens, hidden_tokens
from .evaluate.interpret import UnfitSample, observe_all
from .ir.dataflow import main_functions
from .ir.provenance import Origin, origins
from .progress import Progress, Ticks
from .quant.observers import OBSERVERS, Auto, Observer, rows_of

#: Formats that no float module may have.
_HALF = ("float16", "bfloat16")


@dataclass
class CalibrationStats:
    """What an observer saw of every float tensor, by the name of its function and its label (ir/provenance).

    Two stats of shards of the data, in their order, merge exactly. method: a key of OBSERVERS in
    quant/observers.py; axis and group: one range a tensor (None), a channel of an axis, or a group of them.
    """

    method: str = "minmax"
    axis: int | None = None
    group: int = 1
    samples: int = 0
    observers: dict[tuple[str, str], Observer] = field(default_factory=dict)
    _found: dict[tuple[str, str, str], tuple[np.ndarray, np.ndarray]] = field(
        default_factory=dict, repr=False
    )

    @property
    def identity(self) -> str:
        """What the cache knows them by: what was seen, not which ranges were asked for since."""
        return digest(self.method, self.axis, self.group, self.samples, self.observers)

    def observe(self, function: str, origin: Origin, value: np.ndarray) -> None:
        """Add what a tensor of a function holds in one sample. Tensors without the axis are left out."""
        if value.dtype != np.float32 or not value.size:
            return
        if self.axis is not None and not -value.ndim <= self.axis < value.ndim:
            return
        if not np.isfinite(value).all():
            raise InputError(
                f"calibration: tensor {origin.label!r} holds NaN or Inf; check the model and its "
                "preprocessing"
            )
        self._add((function, origin.label), OBSERVERS[self.method].of(rows_of(value, self.axis, self.group)))

    def merge(self, other: CalibrationStats) -> CalibrationStats:
        """The stats of this data followed by the other's. Raises ValueError for another method."""
        if (self.method, self.axis, self.group) != (other.method, other.axis, other.group):
            raise ValueError(f"stats by {self.method} can't be merged with stats by {other.method}")
        samples, observers = self.samples + other.samples, dict(self.observers)
        out = CalibrationStats(self.method, self.axis, self.group, samples, observers)
        for tensor, state in other.observers.items():
            out._add(tensor, state)
        return out

    def by(self, method: str) -> CalibrationStats:
        """The same stats by one of the methods that an observer `auto` kept them for."""
        states = {tensor: state for tensor, state in self.observers.items() if isinstance(state, Auto)}
        observers = {tensor: state.candidates[method] for tensor, state in states.items()}
        return CalibrationStats(method, self.axis, self.group, self.samples, observers)

    def rows(
        self, label: str, dtype: Format = INT8, function: str = "main"
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """(low, high), float64 [rows], to quantize a tensor to `dtype`. Raises KeyError for one not seen."""
        key = (function, label, dtype.name)
        if key not in self._found:
            self._found[key] = self.observers[function, label].range(dtype)
        return self._found[key]

    def range_of(
        self, label: str, dtype: Format = INT8, function: str = "main"
    ) -> tuple[float, float]:  # fmt: skip
        """(low, high) to quantize the whole of a tensor to `dtype`. Raises KeyError for one not seen."""
        low, high = self.rows(label, dtype, function)
        return float(low.min()), float(high.max())

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """The int8 range of every tensor of main."""
        return {label: self.range_of(label) for function, label in self.observers if function == "main"}

    def _add(self, tensor: tuple[str, str], state: Observer) -> None:
        self.observers[tensor] = self.observers[tensor].merge(state) if tensor in self.observers else state
        self._found.clear()


def calibrate(
    mod: tvm.IRModule,
    batches: Iterable[dict[str, np.ndarray]],
    method: str = "minmax",
    axis: int | None = None,
    group: int = 1,
    hidden: HiddenTokens | None = None,
) -> CalibrationStats:
    """Stats of `mod` over `batches` (dicts of input name -> array). Memory does not grow with their number.

    Of several functions, those run whose inputs a batch has all of, and what they call.
    method: minmax | moving-average | percentile | mse | entropy | auto; axis, group: see CalibrationStats;
    hidden: tokens that don't count.
    Raises InputError for an empty data set, for a batch that no function takes, and for NaN or Inf in any
    tensor.
    """
    _check_dtypes(mod)
    stats = CalibrationStats(method, axis, group)
    try:
        stats.samples = observe_all(mod, batches, stats.observe, hidden.watching if hidden else None)
    except UnfitSample as error:
        raise InputError(f"calibration: {error}") from error
    if not stats.samples:
        raise InputError("the calibration data holds no sample; give at least one")
    return stats


@dataclass(frozen=True)
class _ShardOfStats(Task[tuple[int, "int | None"], CalibrationStats]):
    """Stats of parts of a data set."""

    module: tvm.IRModule
    data: Dataset
    observer: type[Observer]  # itself, so that a worker has it too
    hidden: HiddenTokens | None = None
    tick: Ticks | None = None

    def bench(self) -> None:
        return None

    def work(self, bench: None, item: tuple[int, int | None]) -> CalibrationStats:
        return calibrate(self.module, self._inputs(item), self.observer.method, hidden=self.hidden)

    def sent(self) -> _ShardOfStats:
        return replace(self, tick=None)

    def _inputs(self, item: tuple[int, int | None]) -> Iterator[dict[str, np.ndarray]]:
        for sample in self.data.part(*item):
            if self.tick:
                self.tick()
            yield sample.inputs


def calibrate_shards(
    mod: tvm.IRModule, data: Dataset, observer: type[Observer], workers: Workers, progress: Progress
) -> CalibrationStats:
    """The same as `calibrate` of the data's inputs, by whoever works: stats of shards merge exactly. Tokens
    that a mask hides don't count.

    Data that can't be divided is one shard, and stays here.
    """
    workers = workers if data.divisible else Here()
    tick = Ticks(progress.track, data.count)
    parts = shards(data.count if data.divisible else None)
    first = () if data.once else data.take(SEARCHED)
    hidden = hidden_tokens(mod, (sample.inputs for sample in first))
    found = workers.map(_ShardOfStats(mod, data, observer, hidden, tick), parts)
    stats: CalibrationStats | None = None
    for shard in found:
        stats = shard if stats is None else stats.merge(shard)
        if workers.remote:
            tick(shard.samples)
    if stats is None:
        raise InputError(f"{data.name}: holds no samples: give at least one")
    return stats


def _check_dtypes(mod: tvm.IRModule) -> None:
    """Raise InputError for a module in half precision."""
    for _, func in main_functions(mod):
        for var, origin in origins(func).items():
            dtype = str(getattr(var.ty, "dtype", ""))
            if dtype in _HALF:
                raise InputError(
                    f"calibration: {origin.label!r} is {dtype}: give a module in float32; ToMixedPrecision "
                    "may stand behind LowerToInteger"
                )
