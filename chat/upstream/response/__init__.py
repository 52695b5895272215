"""Read the response of an upstream, and accept the deviations of servers from OpenAI's API."""
