"""CUDA kernels: TIRx PrimFuncs that are already bound to blocks and threads."""
