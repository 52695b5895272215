"""The clients that the limits of new turns tell apart."""
