"""hwptq targets list | show | check: about descriptors."""

from __future__ import annotations

from typing import Annotated

import typer

from .grouped import grouped
from .talk import Talk

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
def show_target(
    context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml")], talk: Talk
) -> None:
    """One target: what it computes, and with which instructions."""
    from hwptq.targets import load_target

    from .terminal import show_target as show
    from .terminal import target_row

    context.obj.begin(None, talk.verbose)
    target = load_target(name)
    talk.tell(target_row(target))
    if not talk.as_json:
        show(target)


@targets_app.command("check")
@grouped
def check_target(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml")],
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
