from __future__ import annotations

from dataclasses import replace

import pytest

from devaipod_web.host import facts, podman_config

V1 = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
MIXED = V1 + "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [(V1, "v1"), (V2, "v2"), (MIXED, "hybrid"), ("tmpfs /tmp tmpfs rw 0 0\n", "none")],
)
def test_cgroups_are_told_apart_by_what_is_mounted(tmp_path, mounts, kind):
    table = tmp_path / "mounts"
    table.write_text(mounts)
    assert facts.cgroups(table) == kind


def test_subordinate_ids_count_by_name_and_by_number(tmp_path):
    table = tmp_path / "subuid"
    table.write_text("ann:100000:65536\n1000:300000:1000\nbob:1:5\nbroken line\n")
    assert facts.sub_ids(table, user="ann", uid=1000) == 66_536
    assert facts.sub_ids(table, user="eve", uid=1001) == 0
    assert facts.sub_ids(tmp_path / "none", user="ann", uid=1000) == 0


def test_a_program_without_a_version_has_none():
    assert facts.version_of(["true"]) == ()
    assert facts.version_of(["/no/such/program"]) == ()


@pytest.fixture
def ordinary():
    """A present-day server: systemd, cgroups v2, every capability."""
    return replace(
        facts.look(),
        uid=0,
        capabilities=(1 << 41) - 1,
        cgroups="v2",
        systemd=True,
        journald=True,
        crun="/usr/bin/crun",
        runc="",
    )


def test_a_host_on_which_podmans_defaults_hold_gets_no_containers_conf(ordinary):
    assert podman_config.document(ordinary) == ""


def test_a_host_like_design_section_8_gets_each_line_with_its_reason(ordinary):
    host = replace(
        ordinary,
        capabilities=0,
        cgroups="hybrid",
        systemd=False,
        journald=False,
        runc="/usr/bin/runc",
        nofile_hard=20_000,
        nproc_hard=96_365,
        pid_max=32_768,
    )
    assert podman_config.document(host) == podman_config.HEADER + (
        "\n[containers]\n"
        "# no CAP_SYS_RESOURCE: limits may not be raised above the host's own\n"
        'default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]\n'
        "# no journald\n"
        'log_driver = "k8s-file"\n'
        "[engine]\n"
        "# cgroups v1 or mixed: crun refuses the mixed form\n"
        'runtime = "runc"\n'
        "# no systemd that would manage cgroups\n"
        'cgroup_manager = "cgroupfs"\n'
        "# no journald\n"
        'events_logger = "file"\n'
    )


def test_an_ordinary_user_on_cgroups_v1_manages_none_of_them_by_systemd(ordinary):
    host = replace(ordinary, uid=1000, cgroups="v1", runc="/usr/bin/runc")
    assert 'cgroup_manager = "cgroupfs"' in podman_config.document(host)


def test_the_file_is_written_once_and_removed_when_the_host_no_longer_needs_it(own_home, ordinary):
    needy = replace(ordinary, journald=False)
    path = podman_config.write(needy)
    assert path is not None and podman_config.environment()["CONTAINERS_CONF"] == str(path)
    before = path.stat().st_mtime_ns
    podman_config.write(needy)
    assert path.stat().st_mtime_ns == before
    assert podman_config.write(ordinary) is None
    assert not path.exists()


def test_another_users_runtime_folder_is_kept_from_podman(own_home, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/no/such/folder")
    assert "XDG_RUNTIME_DIR" not in podman_config.environment()
