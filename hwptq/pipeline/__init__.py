"""The passes of a compilation, from float to kernels: `steps` is the list of them, `stages` runs it."""
