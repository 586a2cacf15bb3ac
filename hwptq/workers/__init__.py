"""Work in independent parts: done in this process or by a Dask cluster, with the same results."""
