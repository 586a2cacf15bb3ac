"""The command line: hwptq compile, diagnose, consistency, verify, bench, and targets list | show | check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hwptq import __version__
from hwptq.errors import HwptqError

from .bench import bench_command
from .consistency import consistency_command
from .diagnose import diagnose_command
from .explain import INTERNAL, explained
from .session import Session
from .verify import verify_command
from .words import axes_of, observer_setting

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)  # plain help: tables would cut the names of options in a narrow terminal
targets_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at target descriptors.")
app.add_typer(targets_app, name="targets")
_errors = Console(stderr=True)


def main(session: Session | None = None) -> None:
    """Run the command line; an error of the user's is one line on standard error, and an exit code."""
    session = session or Session()
    try:
        app(obj=session)
    except Exception as error:
        code, text = explained(error)
        _errors.print(f"[bold red]hwptq:[/] {_escape(text)}", highlight=False, soft_wrap=True)
        if session.verbose and code == INTERNAL:
            _errors.print_exception()
        sys.exit(code)
    except KeyboardInterrupt:
        _errors.print("hwptq: interrupted")
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _version(value: bool) -> None:
    if value:
        print(f"hwptq {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Quantize an fp32 ONNX model and compile it to machine code that computes in integers."""


@app.command("compile")
def compile_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="fp32 or QDQ model, opset 7 or newer")],
    target: Annotated[str, typer.Option(metavar="NAME|FILE.toml", help="device, see: hwptq targets list")],
    calibration_data: Annotated[
        str | None, typer.Option(metavar="DATA", help=".npz, .npy, image folder or module:function")
    ] = None,
    evaluation_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="labels in y; measures accuracy")
    ] = None,
    preprocess: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="mean, std, resize … by input")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="folder to write")] = Path("out"),
    weight_granularity: Annotated[
        str | None, typer.Option(metavar="tensor|channel|group", help="scales of weights")
    ] = None,
    activations: Annotated[
        str,
        typer.Option(
            metavar="static|dynamic", help="dynamic: a scale a token in dense layers, no calibration"
        ),
    ] = "static",
    precision: Annotated[
        str | None,
        typer.Option(metavar="w8a8|w4a8|w4a4|w8a16|w4a16|fp8|bf16", help="dtypes of weights and activations"),
    ] = None,
    lower_ends: Annotated[
        bool,
        typer.Option(
            "--lower-ends", help="--precision, or the choice for --max-drop, for first and last layers too"
        ),
    ] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="KIND=VALUE", help="weights=400kB, cycles=0.8x or macs-int4=70%")
    ] = None,
    exclude: Annotated[
        str | None, typer.Option(metavar="REGEX", help="layers that keep the highest precision offered")
    ] = None,
    keep_float: Annotated[
        str | None, typer.Option(metavar="REGEX", help="names of nodes that stay in float")
    ] = None,
    axes: Annotated[
        list[str] | None, typer.Option("--axis", metavar="NAME=SIZE", help="size of a symbolic axis")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="accuracy that may be lost, else exit code 5", min=0),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="N", help="the most threads that the code can use", min=1, max=16)
    ] = 1,
    tune: Annotated[
        bool, typer.Option("--tune", help="try a few tiles for each layer shape; measured once, then cached")
    ] = False,
    tune_cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="where --tune keeps what it measured")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help="evaluate the first N samples", min=1)
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|module:function", help="top1, top5, map, miou, cosine, sqnr, perplexity, spearman"
        ),
    ] = None,
    calibration_method: Annotated[
        str | None,
        typer.Option(metavar="minmax|moving-average|percentile|mse|entropy", help="range of activations"),
    ] = None,
    recipe: Annotated[str, typer.Option(metavar="fast|default|best", help="set of steps")] = "default",
    steps: Annotated[
        list[str] | None, typer.Option("--set", metavar="STEP=VALUE", help="change a step of the recipe")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print the dtypes of each layer and their cost, and stop")
    ] = False,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="measure every layer quantized alone too, for the report")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="a warning is an error, exit code 5")] = False,
    dump_ir: Annotated[
        Path | None, typer.Option("--dump-ir", metavar="DIR", help="write the module after each pass")
    ] = None,
    trust_descriptor: Annotated[bool, typer.Option(help="let a descriptor file run any program")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="show nothing but errors")] = False,
) -> None:
    """Compile MODEL.onnx for a target, run the code, and report what it costs in accuracy."""
    from hwptq.flow import compile, plan
    from hwptq.options import options_of
    from hwptq.recipe import recipe as named_recipe

    from .terminal import TerminalProgress, show_assignment, show_report

    session: Session = context.obj
    session.begin(output, verbose)
    options = options_of(
        None,
        weight_granularity=weight_granularity,
        activations=activations,
        axes=axes_of(axes or ()),
        precision=precision,
        budget=budget,
        exclude=exclude,
        keep_float=keep_float,
        lower_ends=lower_ends,
        max_drop=max_drop,
        samples=samples,
        threads=threads,
        tune=tune,
        tune_cache=tune_cache,
        metric=metric,
        strict=strict,
        isolate=isolate,
        dump_ir=dump_ir,
        trust_descriptor=trust_descriptor,
        recipe=named_recipe(recipe, [*(steps or ()), *observer_setting(calibration_method)]),
        command=("hwptq", *sys.argv[1:]),
    )
    if dry_run:
        with TerminalProgress(quiet) as progress:
            found = plan(model, target, calibration_data, preprocess, options, progress)
        show_assignment(found)
        return
    with TerminalProgress(quiet) as progress:
        try:
            result: Any = compile(
                model, target, calibration_data, evaluation_data, preprocess, output, options, progress
            )
        except HwptqError as error:
            if error.exit_code in (5, 6) and not quiet:  # the output is complete, and worth a look
                progress.stop()
                show_report(output)
            raise
    if not quiet:
        show_report(result.folder)


app.command("diagnose")(diagnose_command)
app.command("consistency")(consistency_command)
app.command("verify")(verify_command)
app.command("bench")(bench_command)


@targets_app.command("list")
def list_targets() -> None:
    """The targets that come with hwptq."""
    from .terminal import show_targets

    show_targets()


@targets_app.command("show")
def show_target(name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml")]) -> None:
    """One target: what it computes, and with which instructions."""
    from .terminal import show_target as show

    show(name)


@targets_app.command("check")
def check_target(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml")],
    trust_descriptor: Annotated[bool, typer.Option(help="let it run any program")] = False,
) -> None:
    """Check a descriptor file and say everything that is wrong with it."""
    from hwptq.targets import load_target

    descriptor = load_target(file, trust=trust_descriptor)
    print(f"{file}: {descriptor.name} is valid")
