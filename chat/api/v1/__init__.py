"""OpenAI's API (`/v1`), for the clients that speak it."""
