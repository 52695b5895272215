"""The JSON API of conversations."""
