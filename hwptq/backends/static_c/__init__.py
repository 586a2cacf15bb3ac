"""Runtime-free programs in C: an object file, one static program, a shared library."""
