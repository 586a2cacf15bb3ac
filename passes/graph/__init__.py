"""Reading and rewriting graphs: what the passes are built on."""
