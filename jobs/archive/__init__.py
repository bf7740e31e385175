"""Commands on existing images: search, show, verify, reindex, reproduce."""
