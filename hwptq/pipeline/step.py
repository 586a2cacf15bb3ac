"""A step of a compilation, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import tvm

from hwptq.cache.cache import Cache
from hwptq.cache.content import JSON, states
from hwptq.calibration import CalibrationStats, calibrate_shards
from hwptq.data.dataset import Dataset
from hwptq.errors import InputError
from hwptq.evaluate.partner import Partner, read_partner
from hwptq.formats import INT8, format_of, parse_precision
from hwptq.kernels.layer import Layer
from hwptq.options import Options
from hwptq.passes.graph.group_plan import GroupChoice
from hwptq.progress import Progress
from hwptq.quant.histogram import Histogram
from hwptq.quant.observers import OBSERVERS, Auto, MinMax, Observer
from hwptq.targets import Descriptor
from hwptq.workers.workers import Here, Workers

from .ir_dump import IrDump
from .name_patterns import check_patterns
from .observer_choice import SAFE, chosen, held_out
from .recalled_pass import recalled_pass


@dataclass(frozen=True)
class Job:
    """What the steps of one compilation are made from, the same for all of them."""

    target: Descriptor
    data: Dataset | None = None  # for calibration; a model that is quantized already needs none
    options: Options = field(default_factory=Options)
    progress: Progress = field(default_factory=Progress)
    dump: IrDump = field(default_factory=IrDump)
    cache: Cache = field(default_factory=Cache)
    workers: Workers = field(default_factory=Here)

    @property
    def samples(self) -> Dataset:
        """The calibration data. Raises InputError where there is none."""
        if self.data is None:
            raise InputError(
                "the model is in float: give calibration data (or a model with QuantizeLinear nodes)"
            )
        return self.data

    @cached_property
    def partner(self) -> Partner | None:
        """The other one of two towers, if there is one. Raises InputError for a file that holds none."""
        return read_partner(self.options.partner) if self.options.partner else None

    @property
    def batches(self) -> Batches:
        """The inputs of the calibration data, to stream over. Raises InputError where there is none."""
        return Batches(self.samples, self.progress)


class Batches:
    """The inputs of a data set's samples, dicts of arrays of batch 1, shown as they are taken.

    Every iteration reads the data anew: passes that stream over it may do so as often as they need.
    """

    def __init__(self, data: Dataset, progress: Progress):
        self._data, self._progress = data, progress

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for sample in self._progress.track(self._data, self._data.count):
            yield sample.inputs

    @property
    def identity(self) -> str | None:
        """What the cache knows the samples by, their labels too."""
        return self._data.identity


def first_tile(layer: Layer) -> int:
    """The tile of a layer that should be the best."""
    return 0


@dataclass(frozen=True)
class State:
    """A module on its way, and what is known of it."""

    module: tvm.IRModule
    float32: tvm.IRModule | None = None  # before quantization, from calibration on
    stats: CalibrationStats | None = None
    tile_of: Callable[[Layer], int] = first_tile  # see SelectKernels; what --tune found
    groups: GroupChoice | None = None  # of weights that have a scale for each group, where a budget chose


def always(job: Job, now: State) -> bool:
    """A step that every compilation takes."""
    return True


@dataclass(frozen=True)
class Step:
    """A pass, made when its turn comes, where `when` says so. stage: the line and the time that it gets in
    the progress of the compilation, where it takes long enough for one; then the cache keeps its result."""

    name: str
    make: Callable[[Job, State], tvm.transform.Pass]
    when: Callable[[Job, State], bool] = always
    stage: str = ""

    def run(self, job: Job, now: State) -> State:
        """The state behind the pass."""
        step = self.make(job, now)
        if self.stage:
            return replace(now, module=recalled_pass(step, now.module, job.cache))
        return replace(now, module=tvm.ir.transform.Sequential([step])(now.module))


class Record(Step):
    """A pass that writes a choice on the float module itself."""

    def run(self, job: Job, now: State) -> State:
        """The state behind the pass."""
        module = super().run(job, now).module
        return replace(now, module=module, float32=module)


@dataclass(frozen=True)
class Calibrate:
    """A query instead of a pass: what the tensors of the module hold."""

    name: str = "calibrate"
    stage: str = "calibrate"
    when: Callable[[Job, State], bool] = always

    def run(self, job: Job, now: State) -> State:
        """The state with statistics; its module is the one that they are of."""
        observer = OBSERVERS[job.options.recipe.observer]
        if observer is Auto:
            return replace(now, float32=now.module, stats=self._settled(job, now.module))
        return replace(now, float32=now.module, stats=self._of(job, now.module, job.samples, observer))

    def _of(
        self, job: Job, module: tvm.IRModule, data: Dataset, observer: type[Observer]
    ) -> CalibrationStats:
        """The statistics of some data."""
        found: CalibrationStats = job.cache.recall(
            "calibration",
            (observer, module, Batches(data, job.progress)),
            states((CalibrationStats, Histogram, observer)),
            lambda: calibrate_shards(module, data, observer, job.workers, job.progress),
        )
        return found

    def _settled(self, job: Job, module: tvm.IRModule) -> CalibrationStats:
        """Those of the observer that suits samples which are held out; of all samples, once that is known."""
        data, options = job.samples, job.options
        number = held_out(data.count) if data.divisible and reads_bytes(options) else 0
        if not number:
            return self._of(job, module, data, MinMax)
        seen, held = data.part(0, len(data) - number), data.part(len(data) - number, None)
        stats = self._of(job, module, seen, Auto)
        samples, partner = Batches(held, job.progress), job.partner
        method = job.cache.recall(
            "observer",
            (
                module,
                Batches(seen, job.progress),
                samples,
                job.target,
                options.weight_granularity,
                options.keep_float,
                partner,
            ),
            JSON,
            lambda: chosen(
                module, stats, job.target, samples, options.weight_granularity, options.keep_float, partner
            ),
        )
        if method == SAFE:
            return stats.merge(self._of(job, module, held, Auto)).by(method)
        return self._of(job, module, data, OBSERVERS[method])  # a part of the values misses what is rare


def reads_bytes(options: Options) -> bool:
    """Whether layers may be to read bytes: of more bits a range may be as wide as it is."""
    if options.precision is None:
        return True
    read = format_of(parse_precision(options.precision)[0])
    return not read.is_float and read.bits <= INT8.bits


@dataclass(frozen=True)
class CheckPatterns:
    """A query too: do the options of the user name nodes that are there?"""

    name: str = "check patterns"
    stage: str = ""
    when: Callable[[Job, State], bool] = always

    def run(self, job: Job, now: State) -> State:
        """The same state. Raises InputError where a pattern matches nothing."""
        check_patterns(now.module, job.options)
        return now


def run(steps: Sequence[Step | Calibrate | CheckPatterns], job: Job, now: State) -> State:
    """The state behind those of the steps that this job takes."""
    for step in steps:
        if not step.when(job, now):
            continue
        with job.progress.stage(step.stage) if step.stage else nullcontext():
            now = step.run(job, now)
        if isinstance(step, Step):
            job.dump(step.name, now.module)
    return now
