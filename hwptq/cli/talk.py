"""How a command talks: the options that all commands have, and JSON on standard output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hwptq.json_text import json_text

from .config import read_config


@dataclass(frozen=True)
class Talk:
    """What a command prints, and where its options come from."""

    as_json: Annotated[
        bool, typer.Option("--json", help="print one JSON document; all else goes to standard error")
    ] = False
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="show what libraries print")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress and no summary")] = False
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml", callback=read_config, is_eager=True,
            help="read options from a file; those of the command line win",
        ),
    ] = None  # fmt: skip

    @property
    def shows(self) -> bool:
        """Whether there is to be text for people on standard output."""
        return not (self.as_json or self.quiet)

    def tell(self, document: Any) -> None:
        """Print the JSON document of the command, where it is asked for."""
        if self.as_json:
            print(json_text(document))
