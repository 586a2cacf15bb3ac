"""The operators of quantized graphs, one module each: description, reference, portable code and rules.

Importing the package registers them all.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
