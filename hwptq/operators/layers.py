"""Names for the operators with weights, by what they read and give."""

from __future__ import annotations

from .conv2d import Conv2d, Conv2dToFloat
from .dense import Dense, DenseFloat, DenseToFloat

#: Dense layers in integers.
IntegerDense = Dense | DenseFloat
#: Layers in integers.
IntegerLayer = Conv2d | IntegerDense
#: Layers in integers whose result is a short float.
LayerToFloat = Conv2dToFloat | DenseToFloat
