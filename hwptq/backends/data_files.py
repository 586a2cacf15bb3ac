"""Sources in C and Python that lie beside the modules of a backend."""

from __future__ import annotations

from importlib import resources


def data_file(package: str, name: str) -> str:
    """The text of a file of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
