# noqa: INP001 - a script, no module of a package
"""Write a bill of materials (CycloneDX 1.5, JSON) of a locked requirements file to standard output.

It reads the lock only, never the environment, so the same lock always gives the same bytes. Use:
`python ops/sbom.py requirements/worker.txt > sbom.cdx.json`
"""

import json
import re
import sys
from pathlib import Path

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def components(lock: str) -> list[dict[str, object]]:
    """The packages of a lock, sorted by name, each a CycloneDX component with its package URL.

    The SHA-256 of every file that the lock allows is a property: a component's own `hashes` would name one file, and
    which of them pip takes depends on the platform.

    Args:
        lock: the text of a file that pip-compile wrote with hashes.

    Raises:
        ValueError: a requirement is not pinned with `==`, a package has no hash, or nothing is locked.
    """
    found: dict[str, dict[str, object]] = {}
    # A backslash continues a requirement on the next line; comments between requirements start with "#".
    for line in re.sub(r"\\\n", " ", lock).splitlines():
        text = line.strip()
        if not text or text.startswith(("#", "--")):
            continue
        pin = _PIN.match(text)
        if pin is None:
            raise ValueError(f"requirement {text[:60]!r} is not pinned as name==version: run make lock")
        digests = sorted(_HASH.findall(text))
        if not digests:
            raise ValueError(f"requirement {pin['name']!r} has no sha256 hash: run make lock")
        name, version = re.sub(r"[-_.]+", "-", pin["name"]).lower(), pin["version"]
        url = f"pkg:pypi/{name}@{version}"
        found[name] = {
            "type": "library",
            "bom-ref": url,
            "name": name,
            "version": version,
            "purl": url,
            "properties": [{"name": "lock:sha256", "value": digest} for digest in digests],
        }
    if not found:
        raise ValueError("the lock names no package: pass a requirements file that make lock wrote")
    return [found[name] for name in sorted(found)]


def bill(lock: str) -> dict[str, object]:
    """A CycloneDX 1.5 document of a lock's text; raises as `components` does."""
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components(lock)}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: sbom.py REQUIREMENTS_FILE")
    try:
        document = bill(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        sys.exit(f"sbom.py: {sys.argv[1]}: {exc}")
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")
