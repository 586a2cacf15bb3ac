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
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Quantize an fp32 ONNX model and compile it to machine code that computes in integers."""


_COMMANDS: dict[str, Callable[..., None]] = {
    "compile": compile_command,
    "diagnose": diagnose_command,
    "consistency": consistency_command,
    "verify": verify_command,
    "bench": bench_command,
    "run": run_command,
    "compare": compare_command,
    "inspect": inspect_command,
    "generate": generate_command,
    "sweep": sweep_command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(grouped(_command))
app.add_typer(targets_app, name="targets")
app.add_typer(cache_app, name="cache")
