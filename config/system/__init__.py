"""Limits and permissions of the operating system: open files, and access to `.env`."""
