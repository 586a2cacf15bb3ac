"""Names of models as C and Python know them."""

from __future__ import annotations

import re


def identifier(name: str) -> str:
    """A model's name as a C identifier: "resnet-8 v2" -> "resnet_8_v2", "8bit" -> "m8bit"."""
    clean = re.sub(r"\W", "_", name, flags=re.ASCII)
    return clean if re.match(r"[A-Za-z_]", clean) else f"m{clean}"
