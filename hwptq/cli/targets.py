"""hwptq targets list | show | check | measure: about descriptors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from hwptq.errors import InputError

from .grouped import grouped
from .place import On
from .progress_display import TerminalProgress
from .talk import Talk
from .words import targets_from

#: A descriptor.
Name = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", autocompletion=targets_from)]

targets_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at target descriptors.")


@targets_app.command("list")
@grouped
def list_targets(context: typer.Context, talk: Talk) -> None:
    """The targets that come with hwptq."""
    from hwptq.targets import load_target, target_names

    from .terminal import show_targets

    context.obj.begin(None, talk.verbose)
    targets = [load_target(name) for name in target_names()]
    talk.tell({"targets": [{"name": target.name, "summary": target.summary} for target in targets]})
    if not talk.as_json:
        show_targets(targets)


@targets_app.command("show")
@grouped
def show_target(context: typer.Context, name: Name, talk: Talk) -> None:
    """One target: what it computes, and with which instructions."""
    from hwptq.targets import load_target

    from .terminal import show_target as show
    from .terminal import target_row

    context.obj.begin(None, talk.verbose)
    target = load_target(name)
    talk.tell(target_row(target))
    if not talk.as_json:
        show(target)


@targets_app.command("check", short_help="Say everything that is wrong with a descriptor.")
@grouped
def check_target(
    context: typer.Context,
    name: Name,
    talk: Talk,
    trust_descriptor: Annotated[bool, typer.Option(help="let it run any program")] = False,
) -> None:
    """Check a descriptor and say everything that is wrong with it: its values, and what its compiler, its
    emulator and its instructions do."""
    from hwptq.backends.backend import backend_of
    from hwptq.backends.try_out import try_out
    from hwptq.errors import ManyErrors
    from hwptq.targets import load_target

    context.obj.begin(None, talk.verbose)
    descriptor = load_target(name, trust=trust_descriptor)
    trial = try_out(descriptor, backend_of(descriptor))
    if trial.problems:
        raise ManyErrors(f"{name}: {key}: {what}" for key, what in trial.problems)
    tried = {"intrinsics_tried": trial.tried, "not_tried": list(trial.skipped)}
    talk.tell({"file": name, "name": descriptor.name, "valid": True, **tried})
    if talk.shows:
        computed = f", {trial.tried} of its intrinsics compute what it says" if trial.tried else ""
        print(f"{name}: {descriptor.name} is valid{computed}", *trial.skipped, sep="\n  ")


@targets_app.command("measure", short_help="Write a descriptor with what layers cost on a board.")
@grouped
def measure_target(
    context: typer.Context,
    name: Name,
    talk: Talk,
    on: On = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="what to write; NAME-measured.toml if not given")
    ] = None,
    runs: Annotated[int, typer.Option(metavar="N", help="calls of each model that are timed", min=1)] = 100,
    trust_descriptor: Annotated[bool, typer.Option(help="let it run any program")] = False,
) -> None:
    """Measure what a multiply-accumulate of each kind of layer and dtype costs on a board, or here, and write
    a descriptor that extends this one by these costs, for --budget cycles=….

    Under an emulator instructions are counted instead.
    """
    context.obj.begin(None, talk.verbose)
    with TerminalProgress(talk.quiet) as progress:
        with progress.loading():
            from hwptq.cost_measurement import check_writable, descriptor, measure
            from hwptq.targets import load_target
            from hwptq.targets.read import is_name
        target = load_target(name, trust=trust_descriptor)
        file = output or Path(f"{target.name}-measured.toml")
        check_writable(file)
        costs = measure(target, name, on, runs, trust_descriptor, progress)
    base = name if is_name(name) else os.path.relpath(Path(name).absolute(), file.absolute().parent)
    try:
        file.write_text(descriptor(base, target, costs), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: can't be written ({error})") from error
    rows = [{"op": c.op, "dtype": c.dtype, "cost": c.value, "unit": c.unit, "by": c.by} for c in costs]
    talk.tell({"file": str(file), "costs": rows})
    if talk.shows:
        print(*(f"{c.op} {c.dtype}: {c.value:.4g} {c.unit} a multiply-accumulate" for c in costs), sep="\n")
        print(f"written to {file}; {costs[0].by}")
