"""Serve OpenAI's API (`/v1`)."""
