from __future__ import annotations

import socket

import pytest

from devaipod_web import home
from devaipod_web.forges import guard
from devaipod_web.forges.errors import AddressRefused, UpstreamUnreachable


@pytest.mark.parametrize(
    "address",
    [
        "https://forge.example/team/name.git",
        "https://forge.example:8443/team/name",
        "ssh://git@forge.example/team/name.git",
    ],
)
def test_it_takes_addresses_of_forges(address):
    assert guard.check_repository(f"  {address} ") == address


def test_it_reads_the_short_form_of_ssh():
    assert guard.check_repository("git@forge.example:team/n.git") == (
        "ssh://git@forge.example/team/n.git"
    )


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ext::sh -c id",
        "ext::sh",
        "fd::7",
        "git://forge.example/a",
        "ftp://forge.example/a",
        "--upload-pack=touch",
        "-oProxyCommand=id",
        "ssh://-oProxyCommand=id/a",
        "ssh://-x@forge.example/a",
        "https://user:secret@forge.example/a",
        "https://token@forge.example/a",
        "https://forge.example/",
        "https://forge.example/a?x=1",
        "https://forge.example/a\nb",
        "https://forge.example/a\u202eb",
        "https:///a",
        "https://for ge.example/a",
        "https://forge.example:99999/a",
        "file://other.host/a",
        "relative/path",
    ],
)
def test_it_refuses_what_is_no_repository_address(address):
    with pytest.raises(AddressRefused) as refused:
        guard.check_repository(address)
    assert refused.value.next_step


def test_credentials_in_an_address_are_not_repeated_in_the_message():
    with pytest.raises(AddressRefused) as refused:
        guard.check_repository("https://user:hunter2@forge.example/a")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_it_refuses_private_addresses(address):
    with pytest.raises(AddressRefused):
        guard.check_address(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
def test_it_takes_public_addresses(address):
    guard.check_address(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "017700000001", "[::1]", "127.1"]
)
def test_no_spelling_of_this_host_passes(host):
    with pytest.raises((AddressRefused, UpstreamUnreachable)):
        guard.open_repository(f"https://{host}/a.git")


def test_a_network_that_a_manager_lists_is_allowed(settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    target = guard.open_url("http://127.0.0.1:11434/v1/")
    assert (target.url, target.port, target.addresses) == (
        "http://127.0.0.1:11434/v1",
        11434,
        ("127.0.0.1",),
    )
    with pytest.raises(AddressRefused):
        guard.check_address("10.0.0.1")


def test_plain_http_to_the_public_is_refused():
    with pytest.raises(AddressRefused, match="without encryption"):
        guard.check_address("93.184.215.14", scheme="http")


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    def answer(host, port, **kwargs):
        return [(2, 1, 6, "", (ip, port)) for ip in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
        guard.open_repository("https://forge.example/a.git")


def test_what_was_checked_is_what_git_connects_to(monkeypatch):
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **kw: [(2, 1, 6, "", ("93.184.215.14", port))]
    )
    target = guard.open_repository("https://forge.example/a.git")
    assert ("http.curloptResolve", "forge.example:443:93.184.215.14") in target.git_config
    assert target.git_env == {"GIT_ALLOW_PROTOCOL": "https"}


class TestLocalPaths:
    @pytest.fixture(autouse=True)
    def root(self, tmp_path, settings):
        self.root = tmp_path / "repositories"
        self.root.mkdir()  # type: ignore[attr-defined]
        self.outside = tmp_path / "outside"
        self.outside.mkdir()
        settings.LOCAL_REPOSITORY_ROOTS = [str(self.root)]

    def test_a_path_below_a_root_is_taken(self):
        assert guard.check_repository(f"{self.root}/a.git") == f"{self.root}/a.git"
        assert guard.check_repository(f"file://{self.root}/a.git") == f"{self.root}/a.git"

    def test_paths_elsewhere_are_refused(self):
        for path in (
            str(self.outside),
            f"{self.root}/../outside",
            f"{self.root}-other/a.git",
            "/etc",
            f"file://{self.outside}",
        ):
            with pytest.raises(AddressRefused):
                guard.check_repository(path)

    def test_a_link_that_leads_out_is_refused(self):
        (self.root / "link").symlink_to(self.outside)  # type: ignore[operator]
        with pytest.raises(AddressRefused):
            guard.check_repository(f"{self.root}/link")

    def test_the_installation_itself_is_refused_even_below_a_root(self, settings):
        settings.LOCAL_REPOSITORY_ROOTS = ["/"]
        for path in (home.home(), home.staging_dir("abc"), home.home().parent):
            with pytest.raises(AddressRefused):
                guard.check_repository(f"file://{path}")

    def test_the_samples_repositories_are_the_stated_exception(self, settings):
        settings.LOCAL_REPOSITORY_ROOTS = []
        path = home.sample_dir() / "upstream.git"
        assert guard.check_repository(str(path)) == str(path.resolve())
        with pytest.raises(AddressRefused):
            guard.check_repository(str(home.sample_dir() / ".." / "db.sqlite3"))
