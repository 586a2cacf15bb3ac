"""hwptq: a hardware-aware post-training-quantization compiler on Apache TVM."""

from pathlib import Path

# In a checkout, passes/ and targets/ lie beside this package; an installed wheel holds them inside it.
_root = Path(__file__).resolve().parent.parent
if (_root / "passes" / "__init__.py").is_file():
    __path__.append(str(_root))

__version__ = "0.1.0"
