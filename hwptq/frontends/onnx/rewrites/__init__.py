"""ONNX -> ONNX: nodes that the passes have no form for, written with others that they have.

One module for each kind of node; apply_rewrites runs them all. Every rule keeps the values, exactly or up to
the rounding of float32, and is checked with all else by check_import.
"""
