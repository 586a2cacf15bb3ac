"""One chart a module: from parts of a report to SVG."""
