"""A field of a descriptor: what is known about it, and the problems that are found in it."""
