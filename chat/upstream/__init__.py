"""Request an answer from an OpenAI-compatible API and decode it as it arrives."""
