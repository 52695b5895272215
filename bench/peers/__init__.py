"""Servers to compare Holdline with."""
