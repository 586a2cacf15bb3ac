"""What options of several commands say: words of the command line as values."""

from __future__ import annotations

from collections.abc import Iterable

from hwptq.errors import InputError


def axes_of(settings: Iterable[str]) -> dict[str, int]:
    """Sizes of axes by name, of --axis NAME=SIZE."""
    found = {}
    for setting in settings:
        name, _, size = setting.rpartition("=")
        if not name or not size.isdecimal() or not int(size):
            raise InputError(f"--axis {setting}: give NAME=SIZE, such as sequence=64")
        found[name] = int(size)
    return found


def fixed_of(settings: Iterable[str]) -> dict[str, float]:
    """Values of inputs by name, of --fix NAME=VALUE; true and false are 1 and 0."""
    found = {}
    for setting in settings:
        name, _, value = setting.rpartition("=")
        try:
            found[name] = float({"true": "1", "false": "0"}.get(value.lower(), value))
        except ValueError:
            name = ""
        if not name:
            raise InputError(
                f"--fix {setting}: give NAME=VALUE, such as sample_rate=16000 or use_cache=false"
            )
    return found


def observer_setting(method: str | None) -> list[str]:
    """The setting of a recipe that --calibration-method stands for."""
    from hwptq.quant.observers import OBSERVERS

    if method is not None and method not in OBSERVERS:
        raise InputError(f"--calibration-method {method}: give {', '.join(OBSERVERS)}")
    return [] if method is None else [f"observer={method}"]


def targets_from(incomplete: str) -> list[str]:
    """The shipped targets that begin so, for completion in the shell; where none does, it offers files."""
    from hwptq.targets import target_names

    return [name for name in target_names() if name.startswith(incomplete)]
