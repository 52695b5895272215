"""Check questions and answers, and hold answers back until they have passed."""
