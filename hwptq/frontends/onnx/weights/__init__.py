"""Where the constants of an ONNX model lie."""
