"""The manifest: journals, sealed Parquet parts, recovery after crashes, and queries.

    output_dir/manifest/journal/<stem>.jsonl    one per live worker, each line fsynced (journal.py, events.py)
    output_dir/manifest/parts/<stem>.parquet    sealed and immutable, one schema (parts.py, sealing.py)
    output_dir/manifest/log/<uuid>.json         a replacement of parts that is under way (replacement.py)
    output_dir/manifest/*.lock                  kernel locks; the file itself means nothing (locks.py,
    claims.py)

A row counts once its journal line is durable. Nothing is rewritten in place; every step can be repeated
after a crash. Temporary files are `.NAME.UUID.tmp`, which pandas, DuckDB, pyarrow and Polars all ignore.
"""
