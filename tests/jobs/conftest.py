"""Being here, this file makes pytest put `tests/jobs` on the import path: `manifest_rows` is shared by its tests."""
