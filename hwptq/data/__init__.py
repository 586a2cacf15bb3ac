"""Samples: where they come from, and how they become inputs of a model."""
