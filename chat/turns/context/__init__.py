"""Choose the messages that a turn sends upstream, within a budget of tokens."""
