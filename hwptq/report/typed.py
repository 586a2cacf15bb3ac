"""The report with types: the same figures as report.json, by attribute.

Keys that a later version adds are left out here until they have a field; `CompiledModel.report` has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from hwptq.notices import Warning

from .accuracy import drop

T = TypeVar("T")


@dataclass(frozen=True)
class FloatNode:
    """A node that stays in float, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Coverage:
    """How much of the model is quantized."""

    macs_total: int
    macs_quantized: int
    nodes_quantized: int
    nodes_float: tuple[FloatNode, ...] = ()

    @property
    def share(self) -> float:
        """Of the multiply-accumulates, 0 … 1."""
        return self.macs_quantized / self.macs_total if self.macs_total else 0.0


@dataclass(frozen=True)
class LayerDtypes:
    """The dtypes of a layer, its multiply-accumulates, and the bytes of its weights."""

    name: str
    op: str
    weight: str
    activation: str
    macs: int
    weight_bytes: int
    packed_bytes: int = 0  # as the kernel stores them


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of all constants: in float32, and in the emitted code."""

    float32: int
    quantized: int


@dataclass(frozen=True)
class BitExact:
    """What running the emitted code has shown against the reference."""

    executor: str
    samples: int
    values: int
    mismatches: int
    first_mismatch: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """Scores over the same samples by one metric: "top1" (percent), "sqnr_db", or the name of the user's.

    By "sqnr_db" float32 has none. `emitted` is None where the code was not run. The maps have a value for
    "reference" and "emitted"; None for an SQNR means that nothing differs.
    """

    metric: str
    samples: int
    float32: float | None = None
    reference: float | None = None
    emitted: float | None = None
    sqnr_db: Mapping[str, float | None] | None = None
    cosine: Mapping[str, float] | None = None

    @property
    def drop(self) -> float | None:
        """Points, or units of the metric, that the code loses; None for SQNR or where it wasn't run."""
        scores = {"metric": self.metric, "float32": self.float32, "emitted": self.emitted}
        return None if self.float32 is None else drop(scores)


@dataclass(frozen=True)
class LayerNoise:
    """The SQNR of a layer's output in dB; None where it is exact. isolated: where it alone is quantized, of
    its own output and of the model's; None where nobody asked. change_db: less that of the noisiest tensor it
    reads. node: as the user's file calls it; bytes: of its constants and of its result, as they are stored, 0
    where another layer's kernel computes it too. kept: the share of what varies in float that it keeps
    (report/directions.py), with the verdict "fine", "degraded" or "collapsed". What is unknown is "", 0 or
    None.
    """

    name: str
    sqnr_db: float | None
    isolated_sqnr_db: float | None = None
    isolated_output_sqnr_db: float | None = None
    change_db: float | None = None
    node: str = ""
    operator: str = ""
    kernel: str = ""
    macs: int = 0
    bytes: int = 0
    kept: float | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Report:
    """What was compiled, and what the emitted code was found to do."""

    model: str
    target: str
    hwptq: str  # version
    caution: str | None
    coverage: Coverage
    bits: tuple[LayerDtypes, ...]
    weight_bytes: WeightBytes
    arena_bytes: int  # for activations, at most
    bit_exact: BitExact
    accuracy: Accuracy
    layers: tuple[LayerNoise, ...]
    warnings: tuple[Warning, ...]
    seconds: Mapping[str, float]  # by stage

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Report:
        """From the object of report.json."""
        cover = report["coverage"]
        parts = {
            "coverage": _made(Coverage, cover | {"nodes_float": _rows(FloatNode, cover["nodes_float"])}),
            "bits": _rows(LayerDtypes, report["bits"]),
            "weight_bytes": _made(WeightBytes, report["weight_bytes"]),
            "bit_exact": _made(BitExact, report["bit_exact"]),
            "accuracy": _made(Accuracy, report["accuracy"]),
            "layers": _rows(LayerNoise, report["layers"]),
            "warnings": _rows(Warning, report["warnings"]),
        }
        return _made(cls, {**report, **parts})


def _made(cls: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass from those of the keys that it has fields for."""
    names = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: data[name] for name in names if name in data})


def _rows(cls: type[T], rows: list[dict[str, Any]]) -> tuple[T, ...]:
    return tuple(_made(cls, row) for row in rows)
