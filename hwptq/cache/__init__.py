"""Results kept on disk by the hash of all that determines them: a store, its keys, and what entries hold."""
