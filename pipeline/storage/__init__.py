"""Atomic files, locks, small databases, the user's folders, safe names."""
