"""The settings, the supervisor and the embedded Redis; example files for deployment."""
