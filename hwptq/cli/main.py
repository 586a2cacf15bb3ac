"""The command line: one module a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from hwptq import __version__

from .bench import bench_command
from .cache import cache_app
from .compare import compare_command
from .compile import compile_command
from .consistency import consistency_command
from .diagnose import diagnose_command
from .explain import INTERNAL, explained
from .generate import generate_command
from .grouped import grouped
from .inspect import inspect_command
from .run import run_command
from .session import Session
from .sweep import sweep_command
from .targets import targets_app
from .verify import verify_command

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)  # plain help: tables would cut the names of options in a narrow terminal
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Quantize an fp32 ONNX model and compile it to machine code that computes in integers."""


#: Each with what the list of commands says of it; a docstring would be cut off there.
_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "compile": (compile_command, "Compile a model for a target, run the code, and report."),
    "diagnose": (diagnose_command, "Say what a quantization loses, where, and what mends it."),
    "consistency": (consistency_command, "How well two compiled towers agree on pairs."),
    "verify": (verify_command, "Check compiled code to the bit, here or on boards."),
    "bench": (bench_command, "Time compiled code, here or on a board."),
    "run": (run_command, "Run compiled code on data."),
    "compare": (compare_command, "Put several compilations of a model side by side."),
    "inspect": (inspect_command, "Show what is in an output folder."),
    "generate": (generate_command, "Make text with a compiled language model."),
    "sweep": (sweep_command, "Compile many models for many targets, and compare."),
}
for _name, (_command, _short) in _COMMANDS.items():
    app.command(_name, short_help=_short)(grouped(_command))
app.add_typer(targets_app, name="targets")
app.add_typer(cache_app, name="cache")
