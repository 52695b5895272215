"""Set up logging for the supervisor and its workers."""

import logging


def start_logging(level: str) -> None:
    """Log to standard error.

    Other packages log warnings and errors only, because their other messages may quote the text
    of users.
    """
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("holdline").setLevel(level.upper())
    if level == "debug":
        logging.getLogger("sanic").setLevel(logging.INFO)
