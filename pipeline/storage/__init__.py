"""Files that are whole or absent, locks, small databases, folders of the user, safe names."""
