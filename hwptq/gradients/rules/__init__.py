"""How a gradient goes back through each operator: `derivative` of rule.py marks the functions that say so."""
