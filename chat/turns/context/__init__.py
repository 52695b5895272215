"""What a request of a turn sends upstream: its messages, within a budget of tokens."""
