"""What commands ask about a model that they quantize: each option is defined here, once."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .place import On
from .words import axes_of, fixed_of, observer_setting, targets_from

#: Who computes.
Cluster = Annotated[
    str | None,
    typer.Option(metavar="local:N|tcp://HOST:PORT", help="let the workers of a Dask cluster compute"),
]
#: Whether results of earlier compilations count.
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="compute all anew, and keep nothing of it for the next time")
]


@dataclass(frozen=True)
class Case:
    """The model, the device, and the data."""

    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="fp32 or QDQ model, opset 7 or newer")]
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.toml", help="device, see: hwptq targets list", autocompletion=targets_from
        ),
    ]
    calibration_data: Annotated[
        str | None, typer.Option(metavar="DATA", help=".npz, .npy, image folder or module:function")
    ] = None
    evaluation_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="labels in y; measures accuracy")
    ] = None
    preprocess: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="mean, std, resize … by input")
    ] = None

    @property
    def arguments(self) -> tuple[Path, str, str | None, str | None, Path | None]:
        """Those that compile, diagnose and repair begin with."""
        return self.model, self.target, self.calibration_data, self.evaluation_data, self.preprocess


@dataclass(frozen=True)
class Quantization:
    """How to quantize, and how that is measured."""

    weight_granularity: Annotated[
        str | None, typer.Option(metavar="tensor|channel|group", help="scales of weights")
    ] = None
    group: Annotated[
        int | None,
        typer.Option(metavar="N", help="weights that share a scale, with --activations dynamic", min=1),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="w8a8|w4a8|w3a8|w2a8|w4a4|w8a16|w4a16|fp8|bf16", help="dtypes of weights and activations"
        ),
    ] = None
    lower_ends: Annotated[
        bool,
        typer.Option(
            "--lower-ends", help="--precision, or the choice for --max-drop, for first and last layers too"
        ),
    ] = False
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=VALUE", help="weights=400kB, bits=3.2, cycles=0.8x, macs-int4=70%, arena=64kB"
        ),
    ] = None
    exclude: Annotated[
        str | None, typer.Option(metavar="REGEX", help="layers that keep the highest precision offered")
    ] = None
    keep_float: Annotated[
        str | None, typer.Option(metavar="REGEX", help="names of nodes that stay in float")
    ] = None
    partner: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="embeddings of the other tower: what pairs lose decides"),
    ] = None
    axes: Annotated[
        list[str] | None, typer.Option("--axis", metavar="NAME=SIZE", help="size of a symbolic axis")
    ] = None
    fixed: Annotated[
        list[str] | None,
        typer.Option("--fix", metavar="NAME=VALUE", help="an input that always has this value: a constant"),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="accuracy that may be lost, else exit code 5", min=0),
    ] = None
    samples: Annotated[int | None, typer.Option(metavar="N", help="evaluate the first N samples", min=1)] = (
        None
    )
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|module:function",
            help="top1, top5, map, miou, cosine, sqnr, perplexity, spearman, retrieval",
        ),
    ] = None
    calibration_method: Annotated[
        str | None,
        typer.Option(
            metavar="minmax|moving-average|percentile|mse|entropy|auto", help="range of activations"
        ),
    ] = None
    recipe: Annotated[str, typer.Option(metavar="fast|default|best", help="set of steps")] = "default"
    steps: Annotated[
        list[str] | None, typer.Option("--set", metavar="STEP=VALUE", help="change a step of the recipe")
    ] = None
    trust_descriptor: Annotated[bool, typer.Option(help="let a descriptor file run any program")] = False
    cluster: Cluster = None
    no_cache: NoCache = False

    def words(self) -> dict[str, Any]:
        """The same as keywords of hwptq.options.Options."""
        from hwptq.recipe import recipe as named_recipe

        settings = [*(self.steps or ()), *observer_setting(self.calibration_method)]
        same = (
            "weight_granularity", "group", "precision", "lower_ends", "budget", "exclude", "keep_float",
            "partner", "max_drop", "samples", "metric", "trust_descriptor", "cluster",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in same},
            "axes": axes_of(self.axes or ()),
            "fixed": fixed_of(self.fixed or ()),
            "recipe": named_recipe(self.recipe, settings),
            "cache": not self.no_cache,
            "command": ("hwptq", *sys.argv[1:]),
        }


@dataclass(frozen=True)
class Code:
    """How code is made and what is insisted on, by compile alone."""

    activations: Annotated[
        str,
        typer.Option(
            metavar="static|dynamic", help="dynamic: a scale a token in dense layers, no calibration"
        ),
    ] = "static"
    threads: Annotated[
        int, typer.Option(metavar="N", help="the most threads that the code can use", min=1, max=16)
    ] = 1
    on: On = None
    validation_data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="what a search for --max-drop measures on, else the evaluation data"
        ),
    ] = None
    kv_cache: Annotated[
        str,
        typer.Option(
            metavar="float32|int8|outside",
            help="caches of a decoding step: in the program, or as in the file",
        ),
    ] = "float32"
    prompt: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="of a decoding step: its program can read T tokens of a prompt at once, too (a number: the "
            "text is given to hwptq generate)",
            min=2,
        ),
    ] = None
    tune: Annotated[
        bool, typer.Option("--tune", help="try a few tiles for each layer shape; measured once, then cached")
    ] = False
    tune_cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where --tune keeps what it measured")
    ] = None
    profile: Annotated[
        bool, typer.Option("--profile", help="measure what each layer costs, in time or in instructions")
    ] = False
    isolate: Annotated[
        bool, typer.Option("--isolate", help="measure every layer quantized alone too, for the report")
    ] = False
    strict: Annotated[bool, typer.Option("--strict", help="a warning is an error, exit code 5")] = False
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", metavar="DIR", help="write the module after each pass")
    ] = None

    def words(self) -> dict[str, Any]:
        """The same as keywords of hwptq.options.Options."""
        words = dict(vars(self))
        return {"executor": words.pop("on"), **words}
