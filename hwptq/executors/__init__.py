"""How a compiled model is run: in this process, as a process of its own, under an emulator, on a GPU."""
