"""From a model as people have it to a Relax module."""
