"""--tune: tiles by measurement."""
