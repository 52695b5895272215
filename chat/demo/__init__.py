"""The built-in demo model, which answers over the real protocol."""
