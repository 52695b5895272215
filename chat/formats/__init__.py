"""Turn the records of a log into a wire format. Pure."""
