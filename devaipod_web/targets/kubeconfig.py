"""A kubeconfig that may be stored: one context of it, with everything in it and nothing that runs or reads something on this host.

`kubectl` executes what a kubeconfig's `exec` names and opens the files that it points to. From a form of ours either would be a way
into the control plane's host, so such files are refused with what to do instead.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

MAX_BYTES = 128 * 1024
#: Keys of a user or cluster that are paths of this host, or programs to execute.
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_PROGRAMS = ("exec", "auth-provider")
FLATTEN = "`kubectl config view --minify --flatten --raw` writes one with everything in it."


@dataclass(frozen=True)
class Kubeconfig:
    """One context: its name, its API server's address, its namespace (or empty) and a document with nothing else in it."""

    context: str
    server: str
    namespace: str
    text: str


def read(text: str, *, context: str = "") -> Kubeconfig:
    """The named context of a kubeconfig, or its current one. Raises ValueError with a sentence when it can't be used."""
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"A kubeconfig is at most {MAX_BYTES // 1024} KiB long. {FLATTEN}")
    document = _document(text)
    name = context or str(document.get("current-context") or "")
    if not name:
        raise ValueError("The kubeconfig has no current context: name one.")
    chosen = _named(document, "contexts", "context", name)
    cluster = _named(document, "clusters", "cluster", str(chosen.get("cluster") or ""))
    user = _named(document, "users", "user", str(chosen.get("user") or ""))
    if any(_is_left_out(value) for value in (*cluster.values(), *user.values())):
        raise ValueError(f"The kubeconfig's secrets are left out. {FLATTEN}")
    server = _server(cluster)
    for part in (cluster, user):
        _refuse_what_leaves(part)
    kept = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": chosen}],
        "clusters": [{"name": chosen["cluster"], "cluster": cluster}],
        "users": [{"name": chosen["user"], "user": user}],
    }
    return Kubeconfig(name, server, str(chosen.get("namespace") or ""), json.dumps(kept))


def _is_left_out(value: object) -> bool:
    """Whether it is what `kubectl config view` prints in a secret's place."""
    return value in ("REDACTED", "DATA+OMITTED")


def _document(text: str) -> dict[str, Any]:
    try:
        # Aliases of YAML can make a small text an immense document: a kubeconfig has none.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("A kubeconfig has no YAML aliases.")
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("This is not a kubeconfig: it is not YAML.") from error
    if not isinstance(document, dict) or not isinstance(document.get("contexts"), list):
        raise ValueError("This is not a kubeconfig: it has no contexts.")
    return document


def _named(document: dict[str, Any], group: str, inner: str, name: str) -> dict[str, Any]:
    rows = document.get(group)
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and row.get("name") == name:
            found = row.get(inner)
            return found if isinstance(found, dict) else {}
    raise ValueError(f"The kubeconfig has no {inner} {name[:80]!r}.")


def _server(cluster: dict[str, Any]) -> str:
    server = str(cluster.get("server") or "")
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(
            f"The API server's address must be https://…, not {server[:80]!r}: a credential is sent there."
        )
    if parts.username or parts.password:
        raise ValueError("The API server's address must not hold a password.")
    return server[:300]


def _is_here(server: str) -> bool:
    """Whether the server is on this very host, where nothing lies on the way."""
    host = urlsplit(server).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refuse_what_leaves(part: dict[str, Any]) -> None:
    for key in _PROGRAMS:
        if part.get(key):
            raise ValueError(
                f"The kubeconfig has {key!r}: it would execute a program on the server. Use a service account's token instead "
                "(docs/run/kubernetes.md)."
            )
    for key in _FILES:
        if part.get(key):
            raise ValueError(f"The kubeconfig points to a file ({key}). {FLATTEN}")
    if part.get("insecure-skip-tls-verify") and not _is_here(str(part.get("server") or "")):
        raise ValueError(
            "The kubeconfig skips the check of the server's certificate, and its credential could be taken on the way. "
            "Put the authority's certificate into certificate-authority-data."
        )
