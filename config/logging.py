"""Set up logging for a server and its workers."""

import logging


def start_logging(level: str) -> None:
    """Log to the standard error; of other packages only what went wrong, for they quote people's words."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("holdline").setLevel(level.upper())
    if level == "debug":
        logging.getLogger("sanic").setLevel(logging.INFO)
