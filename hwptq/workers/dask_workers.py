"""The workers of a Dask cluster, which schedules: they may die and join, and no result depends on it.

A task is sent to the scheduler once; workers take it from there or from each other, and make their bench when
they first need it. What a dead worker had, others compute again.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from hwptq.backends.backend import backend_of
from hwptq.blas import one_blas_thread
from hwptq.errors import HwptqError, InputError
from hwptq.targets import Descriptor

from .workers import Task, Workers

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Workers that may die over one item before it is thought to kill them.
_DEATHS = 100
#: Benches that a worker keeps.
_KEPT = 3
#: Times that the processes of `local:N` are started: one that dies on its way takes all with it.
_STARTS = 3
_INSTALL = "pip install 'hwptq[cluster]'"


class DaskWorkers(Workers):
    """place: local:N for N processes here, or tcp://HOST:PORT of a scheduler.

    Raises InputError where that is not what it is, or nobody answers there.
    """

    remote = True

    def __init__(self, place: str):
        try:
            import dask
            from distributed import Client
        except ImportError as error:
            raise InputError(f"--cluster {place}: needs Dask: {_INSTALL}") from error
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": _DEATHS,
                "distributed.admin.large-graph-warning-threshold": "1 TiB",  # a task holds a model
                "distributed.nanny.pre-spawn-environ": _environment(dask.config),
            }
        )
        self._cluster = _local_cluster(place) if place.startswith("local:") else None
        if self._cluster is None and not place.startswith(("tcp://", "tls://")):
            raise InputError(f"--cluster {place}: give local:N or tcp://HOST:PORT")
        try:
            self.client = Client(self._cluster or place, timeout="30s", set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise InputError(f"--cluster {place}: no scheduler answers there") from error
        if not self.client.scheduler_info(n_workers=-1)["workers"]:
            self.close()
            raise InputError(f"--cluster {place}: the scheduler has no workers")

    def map(self, task: Task[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        name, sent = self._send(task)
        futures = [
            self.client.submit(_do, name, sent, _pickled(item), pure=False, retries=_DEATHS) for item in items
        ]
        try:
            for future in futures:
                yield self._result(future)
        finally:
            self.client.cancel([sent, *futures])

    def start(self, task: Task[Item, Result], item: Item) -> Callable[[], Result]:
        """Behind all that is certainly wanted. Dask forgets what nobody holds any more."""
        name, sent = self._send(task)
        future = self.client.submit(_do, name, sent, _pickled(item), pure=False, retries=_DEATHS, priority=-1)
        return partial(self._result, future)

    def _send(self, task: Task[Any, Any]) -> tuple[str, Any]:
        """A name of the task by its content, and the future that holds it."""
        data = _pickled(task.sent())
        name = sha256(data).hexdigest()
        return name, self.client.submit(_same, data, key=f"task-{name}", pure=True)

    def check(self, targets: Sequence[Descriptor], paths: Sequence[str]) -> None:
        found = self.client.run(_lacks, list(targets), [str(Path(path).resolve()) for path in paths])
        lacking = [f"{worker}: {what}" for worker, what in found.items() if what]
        if lacking:
            raise InputError("; ".join(lacking))

    def close(self) -> None:
        with suppress(OSError, TimeoutError):
            self.client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _result(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker

        try:
            return future.result()
        except (CancelledError, KilledWorker) as error:
            raise HwptqError(f"the cluster gave up: {error}") from error


def _environment(config: Any) -> dict[str, Any]:
    """Dask's, for workers here, without the limit by which they give the memory of each tensor back at once:
    then the pages of the next one are got, and cleared, anew.
    """
    given = config.get("distributed.nanny.pre-spawn-environ", {})
    return {name: value for name, value in given.items() if name != "MALLOC_TRIM_THRESHOLD_"}


def _local_cluster(place: str) -> Any:
    from distributed import LocalCluster

    count = place.partition(":")[2]
    if not count.isdigit() or int(count) < 1:
        raise InputError(f"--cluster {place}: give local:N, such as local:2")
    for left in reversed(range(_STARTS)):
        try:
            return LocalCluster(
                n_workers=int(count), threads_per_worker=1, dashboard_address=":0", memory_limit=0,
                silence_logs="CRITICAL",
            )  # fmt: skip
        except (RuntimeError, OSError, TimeoutError) as error:
            if not left:
                raise HwptqError(f"--cluster {place}: its processes can't be started: {error}") from error
    raise AssertionError("unreachable")


def _pickled(value: Any) -> bytes:
    """As bytes, which the scheduler only passes on: it would read and write modules again for each worker."""
    import cloudpickle  # metrics and methods of users may be functions

    return bytes(cloudpickle.dumps(value))


def _same(data: bytes) -> bytes:
    return data


class _Benches:
    """What a worker has benches for, the last used at the end; one thread works at a time."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[Any, Any]] = OrderedDict()
        self._one_at_a_time = Lock()

    def work(self, name: str, data: bytes, item: bytes) -> Any:
        with self._one_at_a_time, one_blas_thread():
            if name not in self._held:
                task = pickle.loads(data)
                self._held[name] = task, task.bench()
            self._held.move_to_end(name)
            while len(self._held) > _KEPT:
                old, bench = self._held.popitem(last=False)[1]
                old.leave(bench)
            task, bench = self._held[name]
            return task.work(bench, pickle.loads(item))


def _do(name: str, data: bytes, item: bytes) -> Any:
    """On a worker: the result of an item."""
    from distributed import get_worker

    benches: _Benches = vars(get_worker()).setdefault("hwptq_benches", _Benches())
    return benches.work(name, data, item)


def _lacks(targets: Sequence[Descriptor], paths: Sequence[str]) -> str:
    """On a worker: what it lacks."""
    from hwptq import passes  # noqa: F401  # a worker without it says so by this import

    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        return f"has no {missing[0]}; put it on a disk that all workers see"
    for target in targets:
        try:
            backend_of(target).check()
        except InputError as error:
            return str(error)
    return ""
