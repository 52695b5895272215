"""Prepare the process of a server, once its log is open."""

from config.system import descriptors, env_file


def prepare() -> None:
    """Raise the limit of open files, and warn if others may read `.env`."""
    descriptors.raise_limit()
    env_file.warn_if_exposed()
