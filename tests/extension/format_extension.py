"""A number format of one's own: integers of 6 bits, which hwptq doesn't bring.

Importing this file is all it takes: a descriptor may then name int6, and `--precision w6a8` asks for it.
"""

from __future__ import annotations

from hwptq.formats import IntegerFormat, register

INT6 = register(IntegerFormat("int6", 6))
