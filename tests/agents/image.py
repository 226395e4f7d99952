"""The image of the scripted agent: the product's agent image with another `opencode` in it. Needs no Django."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from devaipod_web.host import podman_config

SCRIPTED = Path(__file__).with_name("scripted.py")
AGENT_IMAGE = "localhost/devaipod-agent:dev"


def podman(*words: str, check: bool = True) -> str:
    """Run podman's own command and return what it printed."""
    done = subprocess.run(
        ["podman", *words],
        env=podman_config.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if check and done.returncode:
        raise AssertionError(f"podman {' '.join(words)}: {done.stderr}")
    return done.stdout.strip()


def unhealthy_image() -> str:
    """The scripted agent's image with a health check that fails and says so."""
    base = scripted_image()
    name = base.replace("test-scripted", "test-unhealthy")
    if podman("images", "-q", name):
        return name
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "Containerfile"
        recipe.write_text(f'FROM {base}\nHEALTHCHECK CMD echo "the database is down"; exit 1\n')
        # The OCI form has no health check; Docker's does.
        podman("build", "-q", "--format=docker", "--tag", name, "--file", str(recipe), folder)
    return name


def scripted_image() -> str:
    """An agent image whose `opencode` is the scripted agent of the tests; built once for each version of it."""
    text = SCRIPTED.read_bytes()
    base = podman("images", "-q", AGENT_IMAGE)
    mark = hashlib.sha256(b"executable" + text + base.encode()).hexdigest()[:12]
    name = f"localhost/devaipod-test-scripted:{mark}"
    if podman("images", "-q", name):
        return name
    made = podman("create", AGENT_IMAGE)
    try:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "opencode"
            program.write_bytes(text)
            program.chmod(0o755)
            podman("cp", str(program), f"{made}:/usr/local/bin/opencode")
        podman("commit", "-q", made, name)
    finally:
        podman("rm", "-f", made)
    return name
