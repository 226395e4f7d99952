"""Upstreams over HTTP: a real server with `git http-backend` behind it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devaipod_web.forges import staging
from devaipod_web.forges.errors import (
    AuthenticationRefused,
    RepositoryMissing,
    UpstreamUnreachable,
)


class Forge(BaseHTTPRequestHandler):
    """Serves the folder `root`; paths below /private want credentials, those below /moved redirect."""

    root = ""
    seen: list[str] = []

    def do_GET(self):
        self.seen.append(self.path)
        if self.path.startswith("/private"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="x"')
            self.end_headers()
            return
        if self.path.startswith("/moved"):
            self.send_response(301)
            self.send_header("Location", self.path.replace("/moved", "/upstream.git", 1))
            self.end_headers()
            return
        if self.path.startswith("/page"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html>\n<title>Welcome</title>\n<p>Hello</p>\n")
            return
        path, _, query = self.path.partition("?")
        length = int(self.headers.get("Content-Length") or 0)
        done = subprocess.run(
            ["git", "http-backend"],
            input=self.rfile.read(length),
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": self.root,
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
            },
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = next((value for name, value in fields if name == "Status"), "200 OK")
        self.send_response(int(status.split()[0]))
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def forge(world, settings, monkeypatch):
    """The server's port. Its name `forge.test` is known to our own lookup alone."""
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    Forge.root, Forge.seen = str(world.folder), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forge)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    real = socket.getaddrinfo

    def lookup(host, port, *args, **kwargs):
        return real("127.0.0.1" if host == "forge.test" else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_git_connects_to_the_address_that_was_checked(world, forge):
    # No name server knows forge.test: without the pin git could not find it.
    world.project.upstream_url = f"http://forge.test:{forge}/upstream.git"
    staging.ensure_mirror(world.project)
    assert staging.resolve(world.project, "main")
    assert Forge.seen


def test_a_redirect_is_not_followed_and_said(world, forge):
    world.project.upstream_url = f"http://127.0.0.1:{forge}/moved"
    with pytest.raises(UpstreamUnreachable, match="redirects to another address"):
        staging.ensure_mirror(world.project)
    assert all(path.startswith("/moved") for path in Forge.seen)


def test_a_private_repository_says_that_it_wants_credentials(world, forge):
    world.project.upstream_url = f"http://127.0.0.1:{forge}/private/a.git"
    with pytest.raises(AuthenticationRefused) as refused:
        staging.ensure_mirror(world.project)
    assert "Credentials" in refused.value.next_step


def test_a_repository_that_is_not_there_says_so(world, forge):
    world.project.upstream_url = f"http://127.0.0.1:{forge}/nothing.git"
    with pytest.raises(RepositoryMissing):
        staging.ensure_mirror(world.project)


def test_a_page_that_is_no_repository_says_so(world, forge):
    world.project.upstream_url = f"http://127.0.0.1:{forge}/page"
    with pytest.raises(RepositoryMissing):
        staging.ensure_mirror(world.project)


def test_plain_http_outside_the_listed_networks_is_refused(world, forge, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = []
    world.project.upstream_url = f"http://forge.test:{forge}/upstream.git"
    with pytest.raises(Exception, match="without encryption"):
        staging.ensure_mirror(world.project)
    assert Forge.seen == []
