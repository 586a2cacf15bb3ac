"""Target descriptors: what a device offers, read from TOML files."""

from .loader import load_target, target_names
from .schema import Descriptor

__all__ = ["Descriptor", "load_target", "target_names"]
