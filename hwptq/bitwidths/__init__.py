"""The choice of bit widths: sensitivity, budgets, the optimisation, the search for an accuracy."""
