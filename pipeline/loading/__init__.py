"""Weights onto a device: files, conversion, precision, compilation."""
