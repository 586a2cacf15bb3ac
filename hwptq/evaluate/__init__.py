"""Evaluating Relax modules in numpy, binding by binding."""
