"""The arithmetic of quantization: numpy only, knows nothing of any compiler."""
