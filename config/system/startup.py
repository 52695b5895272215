"""Prepare the process of a server, once its log is open."""

from collections.abc import Collection

from config.system import descriptors, env_file


def prepare(setting_names: Collection[str]) -> None:
    """Raise the limit of open files, and warn of names and access rights of `.env`."""
    descriptors.raise_limit()
    env_file.warn_if_exposed()
    env_file.warn_of_unknown_names(setting_names)
