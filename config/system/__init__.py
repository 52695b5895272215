"""Limits and permissions of the operating system: open files, memory, and access to `.env`."""
