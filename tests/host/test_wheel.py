"""The wheel as `pipx install` has it: in an environment of its own, with nothing of the checkout in reach."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from devaipod_web import __version__, home
from devaipod_web.host import images
from tests.host.test_rootless import ordinary_user  # noqa: F401 - fixture

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.podman, pytest.mark.slow]


class Installed:
    """The command from the wheel, run elsewhere, with an environment that knows nothing of the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"

    def environment(self, place: Path) -> dict[str, str]:
        kept = (
            "PATH",
            "LANG",
            "HOME",
            "SSL_CERT_FILE",
            "HTTPS_PROXY",
            "https_proxy",
            "PIP_INDEX_URL",
        )
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "DEVAIPOD_HOME": str(place / "home"),
            "XDG_RUNTIME_DIR": str(place / "run"),
        }

    def __call__(
        self, *words: str, place: Path, status: int = 0, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(self.bin / "devaipod"), *words],
            cwd="/",
            env=self.environment(place),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == status, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"
        assert str(ROOT) not in done.stdout + done.stderr
        return done

    def python(self, program: str, *, place: Path) -> str:
        done = subprocess.run(
            [str(self.bin / "python"), "-c", program],
            cwd="/",
            env=self.environment(place),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    """Built by pip and installed by pip, with the versions of the lock."""
    folder = Path(tempfile.mkdtemp(prefix="devaipod-wheel-"))
    folder.chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("devaipod_web-*.whl")
    # The system's Python: an ordinary user must be able to run it as well.
    python = shutil.which("python3", path="/usr/bin:/bin")
    assert python, "a Python that another user may run is needed: apt-get install python3"
    _run([python, "-m", "venv", "--without-pip", str(folder / "venv")])
    into = ["--python", str(folder / "venv/bin/python")]
    _run([*pip, *into, "install", "--constraint", str(ROOT / "requirements.lock"), str(wheel)])
    yield Installed(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _run(words: list[str]) -> None:
    done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def place(installed: Installed) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="dvw-"))
    (folder / "run").mkdir(mode=0o700)
    try:
        yield folder
    finally:
        installed("clean", "--yes", place=folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_wheel_carries_what_it_needs_and_nothing_of_the_tests(installed):
    (wheel,) = installed.folder.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for top in ("templates", "static", "images"):
        carried = {name for name in names if name.startswith(f"devaipod_web/{top}/")}
        there = {
            f"devaipod_web/{path.relative_to(ROOT)}"
            for path in (ROOT / top).rglob("*")
            if path.is_file()
        }
        assert carried == there
    assert "pods/sidecar/main.py" in names
    assert not {name for name in names if name.startswith(("tests/", "docs/", "var/"))}


def test_setup_brings_everything_up_a_run_ends_in_a_review_and_teardown_leaves_no_pod(
    installed, place
):
    assert installed("--version", place=place).stdout == f"devaipod {__version__}\n"
    done = installed("setup", place=place)
    assert re.search(r"Sign in once.* http://127\.0\.0\.1:\d+/sign-in/", done.stdout)
    status = json.loads(installed("status", "--json", place=place).stdout)
    assert (status["health"], status["version"]) == ("ok", __version__)
    assert "Review " in installed("demo", place=place).stdout
    # Again: everything is there, and the same server serves.
    before = json.loads((place / "home" / "serve.json").read_text())
    installed("setup", place=place)
    assert json.loads((place / "home" / "serve.json").read_text()) == before
    with urllib.request.urlopen(f"{before['url']}/sign-in/", timeout=10) as answer:
        sheets = re.findall(r'href="(/static/[^"]+\.css)"', answer.read().decode())
    assert sheets
    for sheet in sheets:
        with urllib.request.urlopen(before["url"] + sheet, timeout=10) as answer:
            assert answer.status == 200
    torn = installed("teardown", "--yes", place=place)
    assert "pod" in torn.stdout
    assert "takes no new runs" in installed("status", place=place).stdout
    installed("down", place=place)
    assert "No devaipod server runs" in installed("status", place=place, status=1).stderr


def test_the_images_are_those_of_the_checkout_and_can_be_built_from_the_wheel(installed, place):
    found = installed.python(
        "from devaipod_web.host import images; import dataclasses, json; print(json.dumps(dataclasses.asdict(images.references())))",
        place=place,
    )
    assert json.loads(found) == asdict(images.references())
    tag = f"localhost/devaipod-sidecar:wheel-{os.getpid()}"
    try:
        installed.python(
            "from devaipod_web import home\n"
            "from devaipod_web.host import facts, images, podman_config\n"
            "from devaipod_web.host.terminal import Terminal\n"
            "home.ensure_home(); podman_config.write(facts.look()); say = Terminal()\n"
            "base = images.references().base\n"
            "images.stored(base) or images._make_base(base, say=say)\n"
            f"images._build('sidecar', {tag!r}, base=base, say=say)\n",
            place=place,
        )
        env = {**os.environ, **installed.environment(place)}
        conf = place / "home" / "podman" / "containers.conf"
        if conf.exists():
            env["CONTAINERS_CONF"] = str(conf)
        shown = subprocess.run(
            [
                "podman",
                "run",
                "--rm",
                "--network=none",
                "--entrypoint=python3",
                tag,
                "-c",
                "import pods.sidecar.main",
            ],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert shown.returncode == 0, shown.stderr
    finally:
        subprocess.run(["podman", "rmi", "--force", tag], capture_output=True, check=False)


def test_an_ordinary_user_serves_from_the_wheel(installed, ordinary_user):  # noqa: F811
    user, runtime = ordinary_user
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": user.pw_dir,
        "XDG_RUNTIME_DIR": str(runtime),
    }

    def devaipod(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [str(installed.bin / "devaipod"), *words],
            env=env,
            cwd="/",
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    devaipod("migrate")
    assert (Path(user.pw_dir) / ".local/share/devaipod/db.sqlite3").is_file()
    said = devaipod("serve", "--background")
    url = re.search(r"http://\S+", said)
    assert url is not None
    with urllib.request.urlopen(f"{url[0]}/static/js/app.js", timeout=10) as answer:
        assert answer.status == 200
    # podman's service was never started for this user: that part is down, and said so.
    assert "down  podman's API service" in devaipod("status", status=1)
    devaipod("down")


def test_what_stands_beside_the_package_in_site_packages_is_not_taken_for_ours(installed, place):
    site = installed.python("from devaipod_web import home; print(home.ROOT)", place=place)
    (Path(site) / "templates").mkdir()
    (Path(site) / "images").mkdir()
    shown = installed.python(
        "from devaipod_web import home; from devaipod_web.host import images; print(home.assets(), images.RECIPES)",
        place=place,
    )
    assert shown == f"{site}/devaipod_web {site}/devaipod_web/images"
    assert home.assets() == ROOT
