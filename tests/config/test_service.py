"""The unit of systemd that docs/operations.md describes."""

import shutil
import subprocess
from pathlib import Path

from tests import installed
from tests.processes import ROOT


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    installed.require("systemd-analyze", shutil.which("systemd-analyze"))
    unit = (ROOT / "config" / "holdline.service").read_text()
    path = tmp_path / "holdline.service"
    # The program must exist.
    path.write_text(unit.replace("/opt/holdline/.venv/bin/python", "/bin/sh"))
    command = ["systemd-analyze", "verify", "--man=no", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert {"Restart=on-failure", "KillMode=mixed"} <= set(unit.splitlines())
