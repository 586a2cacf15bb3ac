"""Target descriptors: what a device offers, read from TOML files."""

from .schema import Descriptor

__all__ = ["Descriptor"]
