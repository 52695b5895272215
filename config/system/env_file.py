"""Check who may read `.env`, which holds keys."""

import logging
import stat
from pathlib import Path

logger = logging.getLogger("holdline.env_file")


def warn_if_exposed(path: Path = Path(".env")) -> None:
    """Log a warning if every user of the machine may read the file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        logger.warning("every user of this machine may read .env: run `chmod 600 .env`")
