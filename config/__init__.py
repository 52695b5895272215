"""What an operator sets and takes home: the settings, the processes that serve, examples."""
