"""Fits models into memory: techniques, estimates, the choice of a plan, and its application on a device."""
