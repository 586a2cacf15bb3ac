"""How good outputs are: top-1, SQNR, a metric by its name, or the user's own measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwptq import metrics
from hwptq.errors import InputError
from hwptq.metrics import NamedMetric
from hwptq.options import Metric
from hwptq.user_code import user_object

from .golden import joined


@dataclass
class Sqnr:
    """Signal to quantization noise of a stream of arrays: 20 * log10(|x| / |x - y|) in dB."""

    signal: float = 0.0
    noise: float = 0.0
    dot: float = 0.0
    other: float = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """x: the float values, y: what stands for them; same shape."""
        a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
        self.signal += float(a @ a)
        self.noise += float((a - b) @ (a - b))
        self.dot += float(a @ b)
        self.other += float(b @ b)

    def __add__(self, other: Sqnr) -> Sqnr:
        """Of both streams together."""
        return Sqnr(
            self.signal + other.signal,
            self.noise + other.noise,
            self.dot + other.dot,
            self.other + other.other,
        )

    @property
    def db(self) -> float | None:
        """In dB; None where the two are equal (or nothing was added)."""
        if not self.noise:
            return None
        ratio = self.signal / self.noise
        return round(10 * math.log10(ratio), 2) if ratio > 0 else -math.inf  # also beside infinite noise

    @property
    def cosine(self) -> float:
        return round(self.dot / math.sqrt(self.signal * self.other), 6) if self.signal * self.other else 0.0


@dataclass
class Parts:
    """The SQNR of each channel of a stream of arrays; see channel_axis."""

    axis: int | None = None
    signal: Any = 0.0  # [channels]
    noise: Any = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """x: the float values, y: what stands for them; same shape."""
        self.axis = channel_axis(x.shape)
        if self.axis is None or x.dtype.kind != "f":
            return
        others = tuple(a for a in range(x.ndim) if a != self.axis)
        exact = x.astype(np.float64)
        signal, noise = (np.square(v).sum(axis=others) for v in (exact, exact - y))
        if np.shape(self.signal) in ((), signal.shape):  # else the number of channels is not fixed
            self.signal, self.noise = self.signal + signal, self.noise + noise

    def merge(self, other: Parts) -> None:
        """Add another stream, which follows this one."""
        self.axis = other.axis
        if np.shape(other.signal) and np.shape(self.signal) in ((), np.shape(other.signal)):
            self.signal, self.noise = self.signal + other.signal, self.noise + other.noise

    @property
    def db(self) -> np.ndarray:
        """[channels]; infinite where nothing differs, or the float values are all 0."""
        signal, noise = np.atleast_1d(self.signal), np.atleast_1d(self.noise)
        ratio = np.divide(signal, noise, out=np.full(signal.shape, np.inf), where=(noise > 0) & (signal > 0))
        return 10 * np.log10(ratio)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """The axis along which an output holds values of different kinds: that of the channels of an image, the
    shorter one of [N, A, B]; None of [1, classes] and the like."""
    if len(shape) < 3:
        return 1 if len(shape) == 2 and shape[0] > 1 else None
    return 1 if len(shape) > 3 or shape[1] <= shape[2] else 2


def names_a_class(label: Any, shape: tuple[int, ...]) -> bool:
    """Whether a label is the number of a class, and a first output of this shape ranks classes."""
    return isinstance(label, int) and len(shape) == 2 and shape[0] == 1 and shape[1] > 1


@dataclass
class Score:
    """Accuracy of float32, reference and emitted outputs over the same samples.

    Measures top-1 where every label is an integer and the first output is [1, classes], the user's function
    or the metric where one is given, else SQNR and cosine against float32. insists: top-1 or nothing. unread:
    why labels that are there do not count. best: what a custom metric gives for float32, where the same
    samples were scored before.
    """

    custom: NamedMetric | None = None
    name: str = "top1"
    insists: bool = False
    labels: list[Any] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)
    kept: dict[str, list[list[np.ndarray]]] = field(default_factory=dict)
    sqnr: dict[str, list[Sqnr]] = field(default_factory=dict)  # one for each output
    parts: dict[str, list[Parts]] = field(default_factory=dict)  # also
    samples: int = 0
    ranked: bool = True
    unread: str = ""
    classes: int = 0
    best: float | None = None

    def add(self, label: Any, outputs: dict[str, list[np.ndarray]]) -> None:
        """One sample: `outputs` by kind, "float32" among them."""
        self.samples += 1
        exact = outputs["float32"]
        self.check(label, exact[0].shape)
        if self.ranked and not names_a_class(label, exact[0].shape):
            self.ranked, self.unread = False, _why_unread(label, exact[0].shape)
        self.classes = exact[0].shape[-1] if self.ranked else 0
        if self.custom:
            self.labels.append(label)
        for kind, arrays in outputs.items():
            if self.custom:
                self.kept.setdefault(kind, []).append(arrays)
            if self.ranked:
                self.hits[kind] = self.hits.get(kind, 0) + int(arrays[0].argmax() == label)
            by_output = self.sqnr.setdefault(kind, [Sqnr() for _ in arrays])
            by_part = self.parts.setdefault(kind, [Parts() for _ in arrays])
            for sqnr, parts, x, y in zip(by_output, by_part, exact, arrays, strict=True):
                sqnr.add(x, y)
                parts.add(x, y)

    def fresh(self) -> Score:
        """One that measures the same, of no samples."""
        return Score(self.custom, self.name, self.insists, ranked=self.ranked)

    def merge(self, other: Score) -> None:
        """Add what another has seen, behind the samples of this one."""
        self.samples += other.samples
        self.ranked &= other.ranked
        self.unread = self.unread or other.unread
        self.classes = other.classes
        self.labels += other.labels
        for kind, arrays in other.kept.items():
            self.kept.setdefault(kind, []).extend(arrays)
        for kind, hits in other.hits.items():
            self.hits[kind] = self.hits.get(kind, 0) + hits
        for kind, noises in other.sqnr.items():
            mine = self.sqnr.setdefault(kind, [Sqnr() for _ in noises])
            self.sqnr[kind] = [a + b for a, b in zip(mine, noises, strict=True)]
        for kind, parts in other.parts.items():
            held = self.parts.setdefault(kind, [Parts() for _ in parts])
            for one, another in zip(held, parts, strict=True):
                one.merge(another)

    def check(self, label: Any, shape: tuple[int, ...] | None = None) -> None:
        """Raise InputError where a label is none of the classes, or top-1 is insisted on, but can't be
        measured: no class, no [1, classes]."""
        if self.ranked and not self.custom and shape is not None and names_a_class(label, shape):
            _check_class(label, shape[1])
        if not self.insists:
            return
        if not isinstance(label, int):
            said = "has no label" if label is None else f"has the label {label}"
            raise InputError(f"--metric top1: a sample {said}; give the number of its class in y")
        if shape is not None and not names_a_class(label, shape):
            raise InputError(f"--metric top1: the first output is {list(shape)}, not [1, classes]")

    def report(self) -> dict[str, Any]:
        """The `accuracy` object of the report; its `outputs` are in the order of the model's."""
        row: dict[str, Any] = {"metric": self._named(), "samples": self.samples}
        totals = {kind: sum(by_output, Sqnr()) for kind, by_output in self.sqnr.items()}
        for kind, sqnr in totals.items():
            row[kind] = self._scored(kind, sqnr)
        others = {k: s for k, s in totals.items() if k != "float32"}
        row["sqnr_db"] = {k: s.db for k, s in others.items()}
        row["cosine"] = {k: s.cosine for k, s in others.items()}
        by_output = zip(*(self.sqnr[k] for k in others), strict=True)
        row["outputs"] = [
            {"sqnr_db": {k: s.db for k, s in zip(others, found, strict=True)}} for found in by_output
        ]
        return row

    def _named(self) -> str:
        if self.custom:
            return self.name
        return "top1" if self.ranked else "sqnr_db"

    def _scored(self, kind: str, sqnr: Sqnr) -> float | None:
        """What outputs of a kind score by the metric."""
        if self.custom:
            known = self.best if kind == "float32" else None
            return self._custom(kind) if known is None else known
        return round(100 * self.hits.get(kind, 0) / self.samples, 3) if self.ranked else sqnr.db

    def _custom(self, kind: str) -> float:
        assert self.custom
        outputs, exact = (
            [joined(arrays) for arrays in zip(*self.kept[k], strict=True)] for k in (kind, "float32")
        )
        try:
            labels = None if any(v is None for v in self.labels) else np.asarray(self.labels)
            score = float(self.custom.compute(outputs, labels, exact))
        except Exception as error:
            kind_of = "" if metrics.find(self.name) else f"{type(error).__name__}: "
            raise InputError(f"--metric {self.name}: {kind_of}{error}") from error
        if not math.isfinite(score):
            raise InputError(f"--metric {self.name}: gives {score} for {kind}; it must be a finite number")
        return score


def _check_class(label: int, classes: int) -> None:
    """Raise InputError where a label is no number of a class: nothing could ever be right."""
    if not 0 <= label < classes:
        raise InputError(
            f"a sample has the label {label}, but the first output has {classes} classes, 0 … {classes - 1}: "
            "correct y, or remove it"
        )


def _why_unread(label: Any, shape: tuple[int, ...]) -> str:
    """Why a label does not count; "" where there is none."""
    if label is None:
        return ""
    if isinstance(label, np.ndarray):
        return f"y holds arrays of {list(label.shape)}, not the numbers of classes"
    if not isinstance(label, int):
        return f"y holds numbers such as {label:g}, not those of classes"
    return f"the first output is {list(shape)}, not [1, classes]"


def drop(accuracy: dict[str, Any]) -> float | None:
    """Points (or units of a user's metric) lost from float32 to emitted code; None for SQNR."""
    if accuracy["metric"] == "sqnr_db" or accuracy.get("emitted") is None:
        return None
    best, score = float(accuracy["float32"]), float(accuracy["emitted"])
    return round(metrics.lost(accuracy["metric"], best, score), 6)  # 80.4 - 80.2 is above 0.2


def check_most(most: float | None, metric: str, best: float) -> None:
    """Raise InputError where the points that may be lost are all that float32 scores by a function of the
    user's: one that gives parts of 1 is easily taken for one in percent.
    """
    of_user = ":" in metric
    if of_user and most is not None and 0 < best <= most:
        raise InputError(
            f"--max-drop {most:g}: float32 scores {best:.4g} by {metric}, so that all of it might be lost; "
            "give points in the units of the metric"
        )


def load_metric(metric: str | Metric | None) -> Score:
    """A Score by one of metrics.NAMES, a function or its "module:function"; None: what the labels allow.

    Raises InputError where there is no such metric or function.
    """
    if metric is None:
        return Score()
    if metric == "top1":
        return Score(insists=True)
    if metric == "sqnr":
        return Score(ranked=False)
    if callable(metric):
        return _score_by(metric, _full_name(metric))
    if named := metrics.find(metric):
        return Score(named, named.name)
    if ":" not in metric:
        raise InputError(f"--metric {metric}: give {', '.join(metrics.NAMES)} or module:function")
    try:
        custom = user_object(metric)
    except Exception as error:  # what the user's module may raise
        raise InputError(
            f"--metric {metric}: {error}; give {', '.join(metrics.NAMES)} or module:function"
        ) from error
    if not callable(custom):
        raise InputError(f"--metric {metric}: is no function but of type {type(custom).__name__}")
    return _score_by(custom, metric)


def _score_by(metric: Metric, name: str) -> Score:
    """A Score by a function of the user's, which may have an attribute `boxes`, to show what it finds."""
    boxes = getattr(metric, "boxes", None)
    return Score(
        NamedMetric(name, lambda outputs, labels, exact: metric(list(outputs), labels), boxes=boxes), name
    )


def _full_name(metric: Metric) -> str:
    """module:function, or the class of an object that can be called."""
    return f"{metric.__module__}:{getattr(metric, '__qualname__', type(metric).__name__)}"


def layer_rows(layers: dict[str, Sqnr], order: Sequence[str]) -> list[dict[str, Any]]:
    """The `layers` list of the report, in the order of the graph."""
    return [{"name": n, "sqnr_db": layers[n].db} for n in order if n in layers]
