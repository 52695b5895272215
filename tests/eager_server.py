"""Run server.py, and replace dead workers at once, however often a test kills them.

python tests/eager_server.py python server.py
"""

import runpy
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # as if server.py were run

from config.children import restarts  # noqa: E402

if __name__ == "__main__":
    restarts.SHORT_LIFE_S = 0.0
    runpy.run_path(sys.argv[2], run_name="__main__")
