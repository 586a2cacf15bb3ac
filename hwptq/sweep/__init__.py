"""Many compilations from one file: models by targets by recipes, and what came of them on one page."""
