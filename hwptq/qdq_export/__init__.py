"""A QDQ module as a standard ONNX file: QuantizeLinear, DequantizeLinear, float operators, no custom ones.

int4 tensors are held as int8 within [-8, 7], as in the module. The file gives other tools the scales, zero
points and weights that were chosen; what they compute of it is up to them.
"""

from .export import export_qdq, save_qdq
from .writer import NotExportable

__all__ = ["NotExportable", "export_qdq", "save_qdq"]
