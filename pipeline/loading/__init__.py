"""Loads weights onto a device: files, conversion, precision, compilation."""
