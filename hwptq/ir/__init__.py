"""Reading and rewriting Relax functions: what passes, evaluation and backends stand on."""
