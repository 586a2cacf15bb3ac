"""python scripts/make_man_page.py DIR: hwptq(1), hwptq-compile(1), …, made from the help."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from hwptq import __version__
from hwptq.cli.main import app

EXIT = (
    ("0", "done"),
    ("1", "a fault of hwptq itself"),
    ("2", "wrong usage or bad input"),
    ("3", "the model can't be compiled, or nothing in it could be quantized"),
    ("4", "no choice of dtypes fits the budget"),
    ("5", "the emitted code loses more than --max-drop, or there are warnings with --strict"),
    ("6", "the emitted code computes something else than the reference"),
    ("130, 143", "interrupted, terminated"),
)


def roff(text: str) -> str:
    """Text as roff shows it: minus signs that can be copied, no line that begins with a request."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


def options(command: Any, context: Any) -> Iterator[str]:
    """One tagged paragraph for each argument and option."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            yield f".TP\n\\fB{roff(record[0])}\\fR\n{roff(record[1]) or 'no further words'}"


def page(path: list[str], command: Any, context: Any) -> str:
    """The page of a command; path: the words that call it."""
    help_text = " ".join((command.help or "").split())
    lines = [
        f'.TH {"-".join(path).upper()} 1 "" "hwptq {__version__}" "hwptq"',
        f".SH NAME\n{roff('-'.join(path))} \\- {roff(help_text.partition('. ')[0].rstrip('.'))}",
        f".SH SYNOPSIS\n{roff(' '.join([*path, *command.collect_usage_pieces(context)]))}",
        f".SH DESCRIPTION\n{roff(help_text)}",
        ".SH OPTIONS",
        *options(command, context),
    ]
    children = getattr(command, "commands", {})
    if children:
        lines.append(".SH COMMANDS")
        lines += [f".TP\n\\fB{roff(n)}\\fR\n{roff(c.get_short_help_str(200))}" for n, c in children.items()]
    lines.append(".SH EXIT STATUS")
    lines += [f".TP\n{code}\n{roff(meaning)}" for code, meaning in EXIT]
    return "\n".join(lines) + "\n"


def pages(path: list[str], command: Any, parent: Any = None) -> Iterator[tuple[str, str]]:
    """File name and text of the page of a command, and of those below it."""
    context = command.make_context(path[-1], [], parent=parent, resilient_parsing=True)
    yield f"{'-'.join(path)}.1", page(path, command, context)
    for name, child in getattr(command, "commands", {}).items():
        yield from pages([*path, name], child, context)


def main(folder: str) -> None:
    """Write all pages to a folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for name, text in pages(["hwptq"], typer.main.get_command(app)):
        (place / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
