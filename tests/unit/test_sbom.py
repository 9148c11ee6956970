"""The bill of materials says what the lock says, or nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "ops" / "sbom.py"
HASH = "0" * 64


def run(lock: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, lock], capture_output=True, text=True, timeout=60, check=False)


def test_each_pin_of_the_workers_lock_is_in_the_bill_once():
    lock = ROOT / "requirements" / "worker.txt"
    pins = sorted(
        line.split()[0].split("[")[0] if "[" not in line else line.split("[")[0] + line.split("]")[1].split()[0]
        for line in lock.read_text().splitlines()
        if "==" in line and not line.startswith((" ", "#"))
    )
    done = run(lock)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    listed = [f"{part['name']}=={part['version']}" for part in document["components"]]
    assert len(pins) > 10
    assert sorted(listed) == sorted(pin.lower().replace("_", "-") for pin in pins)
    assert all(part["purl"].startswith("pkg:pypi/") and part["properties"] for part in document["components"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aiohttp>=3\n", "is not pinned"),
        ("aiohttp==3.14.5\n", "has no sha256"),
        ("# nothing\n", "names no package"),
    ],
)
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, text: str, message: str):
    lock = tmp_path / "lock.txt"
    lock.write_text(text)
    done = run(lock)
    assert done.returncode != 0
    assert message in done.stderr
    assert not done.stdout


def test_names_are_normalised_and_extras_left_out(tmp_path: Path):
    lock = tmp_path / "lock.txt"
    lock.write_text(f"My_Package.x[extra]==1.0 ; python_version > '3' \\\n    --hash=sha256:{HASH}\n    # via y\n")
    (part,) = json.loads(run(lock).stdout)["components"]
    assert (part["purl"], part["properties"][0]["value"]) == ("pkg:pypi/my-package-x@1.0", HASH)
