"""Each finding in the circumstance that it is about, made for real: a PATH, a file system, a port, a user, a limit."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from devaipod_web import home
from devaipod_web.host import doctor, podman_service
from devaipod_web.host.doctor import Severity

ROOT = Path(__file__).resolve().parent.parent.parent
needs_root = pytest.mark.usefixtures("must_be_root")


@pytest.fixture
def must_be_root():
    assert os.geteuid() == 0, (
        "this test mounts a file system or changes its user: run the suite as root"
    )


def codes(folder):
    return {finding.code: finding for finding in doctor.check(folder)}


def test_every_finding_is_a_sentence_with_a_reason_and_a_mend(own_home, programs):
    for finding in doctor.check(own_home):
        assert finding.what.endswith("."), finding
        assert finding.why.endswith("."), finding
        assert finding.mend, finding


def test_it_finds_that_podman_and_git_are_missing(own_home, programs):
    found = codes(own_home)
    assert found["podman-missing"].severity is Severity.ERROR
    assert "apt-get install podman" in found["podman-missing"].mend
    assert found["git-missing"].severity is Severity.ERROR
    assert found["chromium-missing"].severity is Severity.NOTE
    assert next(iter(doctor.check(own_home))).severity is Severity.ERROR


def test_a_host_whose_runs_all_go_to_clusters_need_not_have_podman(own_home, programs, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_PODMAN", "off")
    found = codes(own_home)
    assert "git-missing" in found
    assert not [code for code in found if code.startswith(("podman", "sub", "newuidmap", "image"))]


def test_it_finds_a_podman_and_a_git_that_are_too_old(own_home, programs):
    programs("podman", "echo podman version 3.4.4")
    programs("git", "echo git version 2.30.2")
    found = codes(own_home)
    assert "3.4.4" in found["podman-old"].what
    assert "2.30.2" in found["git-old"].what


def test_it_finds_a_podman_that_fails_and_quotes_it(own_home, programs):
    programs(
        "podman",
        'case "$1" in --version) echo podman version 4.3.1 ;; *) echo database is locked >&2; exit 125 ;; esac',
    )
    assert "database is locked" in codes(own_home)["podman-broken"].what


def test_it_finds_a_port_that_another_program_has(own_home, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("DEVAIPOD_PORT", str(other.getsockname()[1]))
        assert "next free port" in codes(own_home)["port-taken"].mend
    assert "port-taken" not in codes(own_home)


def test_it_finds_a_home_that_is_a_file(own_home):
    path = own_home.parent / "file"
    path.write_text("x")
    assert "home-not-writable" in codes(path)


def test_it_finds_a_home_that_others_may_enter(own_home):
    own_home.chmod(0o755)
    assert f"chmod 700 {own_home}" in codes(own_home)["home-open"].mend


@needs_root
def test_it_finds_a_disk_without_room(own_home):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", own_home], check=True)
    try:
        assert "0.0 GB" in codes(own_home)["disk-full"].what
        (own_home / "filler").write_bytes(b"x" * (1024 * 1024))
    except OSError:
        # The last page did not fit: full all the same.
        pass
    try:
        assert "No space left" in codes(own_home)["home-not-writable"].what
    finally:
        subprocess.run(["umount", own_home], check=True)


def test_it_finds_a_socket_path_that_is_too_long(own_home, monkeypatch, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert "107" in codes(own_home)["socket-path"].what


def test_it_finds_a_service_socket_that_nobody_answers_at(own_home):
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(home.podman_socket()))
    assert not podman_service.answers(home.podman_socket())
    assert "make up" in codes(own_home)["podman-socket-stale"].mend


def test_it_finds_a_runtime_folder_that_is_open_to_others(own_home):
    home.runtime_dir().chmod(0o777)
    assert "runtime-not-ours" in codes(own_home)


def _as(own_home, *, before=None, user=None, path=None):
    """Run the doctor as a process with other limits or another user; returns its findings by code."""
    env = {
        "DEVAIPOD_HOME": str(own_home),
        "PATH": path or os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(own_home),
        "HOME": str(own_home),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [_any_python(user), "-m", "devaipod_web.host", "doctor", "--json"],
        env=env,
        cwd="/",
        preexec_fn=before,
        user=user,
        extra_groups=[] if user else None,
        capture_output=True,
        check=False,
    )
    assert done.stdout, done.stderr.decode()
    return {finding["code"]: finding for finding in json.loads(done.stdout)}


def _any_python(user):
    """A Python that another user may run too: .venv's may lie in a home that is closed to others."""
    if user is None:
        return sys.executable
    return shutil.which("python3", path="/usr/bin:/bin") or sys.executable


def test_it_finds_a_low_limit_of_open_files(own_home):
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))

    assert "512 files" in _as(own_home, before=lower)["ulimit-nofile"]["what"]


@needs_root
def test_it_finds_a_user_without_subordinate_ids(tmp_path_factory):
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/dvp-XXXXXX"], text=True).strip())
    try:
        shutil.chown(folder, "nobody")
        # Without podman on the PATH: it would leave its own traces of this user in /tmp.
        found = _as(folder, user="nobody", path=str(folder))
    finally:
        shutil.rmtree(folder)
    assert "usermod --add-subuids" in found["subuid"]["mend"]
    assert "hard bound" in found["no-bounds-rootless"]["what"]


def test_it_finds_clusters_that_are_away_or_do_not_hold_pods_to_their_network(own_home, programs):
    """As the server left its rows: `make doctor` reads them without Django."""
    with contextlib.closing(sqlite3.connect(own_home / "db.sqlite3")) as database:
        database.execute(
            "CREATE TABLE targets_target (name, kind, enabled, health, error, next_step, policies_enforced, "
            "gateway_mode, relay_connected, relay_says, relay_next_step)"
        )
        rows = [
            ("podman", "podman", 1, "down", "away", "", None),
            ("open", "kubernetes", 1, "ok", "", "", 0),
            ("held", "kubernetes", 1, "ok", "", "", 1),
            ("new", "kubernetes", 1, "unknown", "", "", None),
            ("gone", "kubernetes", 1, "down", "no route.", "Look there.", None),
            ("off", "kubernetes", 0, "down", "no route.", "", 0),
        ]
        database.executemany(
            "INSERT INTO targets_target VALUES (?,?,?,?,?,?,?,'direct',0,'','')", rows
        )
        database.commit()
    found = [
        (one.code, one.what, one.mend)
        for one in doctor.check(own_home)
        if one.code.startswith(("target-", "policies-"))
    ]
    assert [code for code, _, _ in found] == [
        "policies-not-enforced",
        "policies-unknown",
        "target-down",
    ]
    assert "open does not enforce" in found[0][1]
    assert "cluster new" in found[1][1]
    assert found[2][1:] == ("The cluster gone does not answer: no route.", "Look there.")


def test_the_documentation_names_every_finding():
    text = (ROOT / "docs" / "run" / "doctor.md").read_text()
    source = (ROOT / "devaipod_web" / "host" / "doctor.py").read_text()
    import re

    known = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', source)) | {"disk-full", "disk-low"}
    assert len(known) > 20
    assert {code for code in known if f"`{code}`" not in text} == set()
