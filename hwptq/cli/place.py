"""--on PLACE: another machine that runs the code."""

from __future__ import annotations

from typing import Annotated

import typer

#: The name of an executor with a place behind it.
On = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="run the code there: ssh:HOST, adb[:SERIAL], rpc:HOST:PORT or rpc-tracker:HOST:PORT/KEY",
    ),
]
