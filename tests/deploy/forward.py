"""Hand on TCP connections from one address to another: stands in for kube-proxy where a test cluster has none.

    python -m tests.deploy.forward LISTEN_HOST LISTEN_PORT TO_HOST TO_PORT

Plain sockets and threads of the standard library: what passes is TLS, and nothing of it is looked at.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading


def main(words: list[str]) -> None:
    """Serve until the process is ended."""
    host, port, to_host, to_port = words
    listening = socket.create_server((host, int(port)))
    print("listening", flush=True)
    while True:
        near, _ = listening.accept()
        try:
            far = socket.create_connection((to_host, int(to_port)), timeout=10)
        except OSError:
            near.close()
            continue
        far.settimeout(None)
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
