"""Programs for NVIDIA GPUs: TVM's virtual machine, as one CUDA graph."""
