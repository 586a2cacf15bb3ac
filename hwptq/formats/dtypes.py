"""The dtypes of quantized tensors; int4 is held as int8."""

from __future__ import annotations

from dataclasses import dataclass

from . import bf16


@dataclass(frozen=True)
class IntegerDtype:
    """A signed integer of `bits` bits."""

    name: str
    bits: int

    @property
    def qmin(self) -> int:
        return -(2 ** (self.bits - 1))

    @property
    def qmax(self) -> int:
        return 2 ** (self.bits - 1) - 1


@dataclass(frozen=True)
class FloatDtype:
    """A float of `bits` bits, `significand` of them the significand's with its implied one.

    qmin, qmax: its largest finite values; scaled: whether tensors in it have a scale.
    """

    name: str
    bits: int
    significand: int
    qmin: float
    qmax: float
    scaled: bool = True


INT8 = IntegerDtype("int8", 8)
INT4 = IntegerDtype("int4", 4)
FLOAT8 = FloatDtype("float8_e4m3fn", 8, 4, -448.0, 448.0)
BFLOAT16 = FloatDtype("bfloat16", 16, 8, -bf16.LARGEST, bf16.LARGEST, scaled=False)
Dtype = IntegerDtype | FloatDtype
_BY_NAME: dict[str, Dtype] = {d.name: d for d in (INT8, INT4, FLOAT8, BFLOAT16)}
#: Names of the dtypes that are floats.
FLOATS = (FLOAT8.name, BFLOAT16.name)


def tensor_dtype(name: str) -> Dtype:
    """The dtype of that name. Raises ValueError for an unknown one."""
    if name not in _BY_NAME:
        raise ValueError(f"no dtype {name!r}; known are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def integer_dtype(name: str) -> IntegerDtype:
    """ "int8" or "int4". Raises ValueError for any other."""
    found = _BY_NAME.get(name)
    if not isinstance(found, IntegerDtype):
        known = [d.name for d in _BY_NAME.values() if isinstance(d, IntegerDtype)]
        raise ValueError(f"no integer dtype {name!r}; known are {', '.join(known)}")
    return found


def precision_of(dtype: str) -> int:
    """How many bits tell neighbouring values apart, the sign's among them: 8 in int8, 5 in e4m3 with its
    implied one, 9 in bfloat16."""
    found = tensor_dtype(dtype)
    return found.significand + 1 if isinstance(found, FloatDtype) else found.bits
