"""Which memory techniques a model needs, before anything of it is loaded. Imports no torch."""
