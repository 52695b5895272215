"""HTTP in, frames out."""
