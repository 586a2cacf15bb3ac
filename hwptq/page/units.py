"""How the page writes numbers."""

from __future__ import annotations


def byte_size(count: float) -> str:
    """Bytes with a unit: 10752 -> 10.8 kB."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def number(count: float) -> str:
    """A count in thousands or millions: 130656 -> 0.13 M."""
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,.0f}"


def points(value: float | None) -> str:
    """A difference with its sign, two digits."""
    return "not run" if value is None else f"{value:+.2f}" if round(value, 2) else "0.00"


def decibel(value: float | None) -> str:
    """An SQNR; None is that of what is exact."""
    return "exact" if value is None else f"{value:.1f}"


FILTERS = {"bytes": byte_size, "number": number, "points": points, "decibel": decibel}
