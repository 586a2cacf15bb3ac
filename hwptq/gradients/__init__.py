"""Derivatives of a float function of Relax, evaluated in numpy: reverse mode over its operators."""
