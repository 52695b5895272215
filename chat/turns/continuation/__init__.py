"""Continue a partial answer: whether, and how the texts are joined."""
