"""How lowered modules become files, and how emitted code is run."""
