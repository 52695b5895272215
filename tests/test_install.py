"""`make` installs into its own environment, whatever pip's settings on this machine are."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.processes import PATIENCE_S, ROOT

PACKAGE = "holdline_test_package"
WHEEL = f"{PACKAGE}-1.0-py3-none-any.whl"


def make_checkout(folder: Path) -> Path:
    """Create a checkout that installs one small package, and the index that has it."""
    index = folder / "index"
    index.mkdir()
    info = f"{PACKAGE}-1.0.dist-info"
    files = {
        f"{PACKAGE}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(index / WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    digest = hashlib.sha256((index / WHEEL).read_bytes()).hexdigest()
    checkout = folder / "checkout"
    checkout.mkdir()
    for lock in ("requirements.lock", "requirements-model.lock"):
        (checkout / lock).write_text(f"{PACKAGE}==1.0 --hash=sha256:{digest}\n")
    shutil.copy(ROOT / "Makefile", checkout)
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    return checkout


def test_settings_of_pip_do_not_change_where_it_installs(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path)
    index, bad = tmp_path / "index", tmp_path / "constraints.txt"
    bad.write_text(f"{PACKAGE}==2.0\n")
    configuration = tmp_path / "pip.conf"
    elsewhere = dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"), "elsewhere")
    switches = dict.fromkeys(("PIP_USER", "PIP_DRY_RUN", "PIP_REQUIRE_VIRTUALENV"), "1")
    others = {
        "PIP_PYTHON": sys.executable, "PIP_NO_BINARY": ":all:", "PIP_CONSTRAINT": str(bad),
        "PIP_PLATFORM": "any", "PIP_PYTHON_VERSION": "3.9", "PIP_ABI": "none",
        "PIP_IMPLEMENTATION": "pp", "PIP_REQUIREMENT": str(bad), "PIP_EDITABLE": str(tmp_path),
    }  # fmt: skip
    anywhere = "target = elsewhere\nprefix = elsewhere\nroot = elsewhere\ndry-run = yes"
    cases: list[dict[str, str]] = [
        elsewhere | switches | others,
        {"install": f"user = true\nno-binary = :all:\nconstraint = {bad}\nrequirement = {bad}"},
        {"install": "target = elsewhere"},
        {"install": "prefix = elsewhere\nroot = elsewhere"},
        {"install": "dry-run = true"},
        {"global": f"python = {sys.executable}\n{anywhere}"},
    ]
    for case in cases:
        settings = {"global": "", "install": "", **case}
        configuration.write_text(
            f"[global]\nno-index = true\nfind-links = {index}\n{settings.pop('global')}\n"
            f"[install]\n{settings.pop('install')}\n"
        )
        environment = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": str(configuration)} | settings
        (checkout / ".venv/run.lock").unlink(missing_ok=True)
        for found in (checkout / ".venv").rglob(f"{PACKAGE}*"):
            shutil.rmtree(found) if found.is_dir() else found.unlink()
        targets = [".venv/run.lock", *([".venv-model/done"] if case is cases[-1] else [])]
        process = subprocess.run(
            ["make", *targets, f"PYTHON={sys.executable}"],
            cwd=checkout, env=environment, timeout=PATIENCE_S, capture_output=True, check=False,
        )  # fmt: skip
        assert process.returncode == 0, (case, process.stdout, process.stderr)
        for target in targets:
            folder = (checkout / target).parent
            assert list(folder.rglob(f"site-packages/{PACKAGE}.py")), (case, target)
        assert not (checkout / "elsewhere").exists(), case
