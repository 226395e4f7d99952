"""The one guard for addresses that people type: repositories, model providers and receivers of webhooks.

What is checked when: the form of an address (scheme, credentials, path) when it is saved and again when it is used; the
network addresses behind a host name only when it is used, and the connection is then pinned to what was checked, so that
a name server cannot answer differently a second later. Redirects are not followed by any caller.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from devaipod_web import home
from devaipod_web.forges.errors import AddressRefused, UpstreamUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Schemes of repositories with their ports. `http` counts only inside ALLOWED_PRIVATE_NETWORKS.
REPOSITORY_SCHEMES = {"https": 443, "ssh": 22, "http": 80}
#: Schemes of model providers. `http` counts only inside ALLOWED_PRIVATE_NETWORKS (a model on this host, for example).
PROVIDER_SCHEMES = {"https": 443, "http": 80}
#: Schemes of webhooks' receivers. `http` counts only inside ALLOWED_PRIVATE_NETWORKS.
WEBHOOK_SCHEMES = {"https": 443, "http": 80}

_SCP = re.compile(r"^(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9._-]+):(?P<path>(?!/?/).+)$")
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
#: Carrier-grade NAT is not "private" to Python's ipaddress, and is not the public Internet either.
_SHARED = ipaddress.ip_network("100.64.0.0/10")
#: NAT64: the IPv4 address behind it is what counts.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Target:
    """An address that may be used now. For a repository, `git_config` and `git_env` pin git to what was checked."""

    url: str
    scheme: str
    host: str = ""
    port: int = 0
    addresses: tuple[str, ...] = ()

    @property
    def git_config(self) -> list[tuple[str, str]]:
        """Configuration for one git call that connects to the checked addresses and to nothing else."""
        if self.scheme not in ("https", "http"):
            return []
        pinned = ",".join(f"[{a}]" if ":" in a else a for a in self.addresses)
        return [
            ("http.curloptResolve", f"{self.host}:{self.port}:{pinned}"),
            ("http.followRedirects", "false"),
            ("http.proxy", ""),
        ]

    @property
    def git_env(self) -> dict[str, str]:
        """Variables for one git call: this scheme alone, and for ssh no key, agent or configuration of the host's."""
        env = {"GIT_ALLOW_PROTOCOL": self.scheme}
        if self.scheme == "ssh":
            env["GIT_SSH_VARIANT"] = "ssh"
            env["GIT_SSH_COMMAND"] = (
                "ssh -F /dev/null -oBatchMode=yes -oIdentitiesOnly=yes -oIdentityFile=/dev/null -oIdentityAgent=none "
                "-oUserKnownHostsFile=/dev/null -oStrictHostKeyChecking=yes -oConnectTimeout=15 -oProxyCommand=none "
                f"-oHostName={self.addresses[0]} -oHostKeyAlias={self.host}"
            )
        return env


def check_repository(url: str) -> str:
    """The normal form of a repository's address, checked without the network. Raises AddressRefused with a sentence."""
    text = _plain(url)
    if text.startswith("/") or text.lower().startswith("file:"):
        return str(_local_path(text))
    if "::" in text.split("/", 1)[0]:
        raise AddressRefused(
            f"The address {text} names a helper program; such transports are not allowed.",
            next_step="Use https, ssh, or a local path below an allowed folder.",
        )
    if "://" not in text and (match := _SCP.match(text)):
        user = f"{match['user']}@" if match["user"] else ""
        text = f"ssh://{user}{match['host']}/{match['path']}"
    _parts(text, REPOSITORY_SCHEMES, what="repository")
    return text


def open_repository(url: str) -> Target:
    """The same at connect time: the host is resolved, every address checked, and what was checked is pinned.

    Raises AddressRefused, or UpstreamUnreachable when the name is not known.
    """
    text = check_repository(url)
    if text.startswith("/"):
        return Target(url=text, scheme="file")
    scheme, host, port = _parts(text, REPOSITORY_SCHEMES, what="repository")
    return Target(text, scheme, host, port, resolve(host, port, scheme=scheme))


def check_url(url: str) -> str:
    """The normal form of a provider's base address, checked without the network. Raises AddressRefused."""
    text = _plain(url)
    _parts(text, PROVIDER_SCHEMES, what="provider")
    return text.rstrip("/")


def open_url(url: str) -> Target:
    """A provider's address at connect time, with the addresses that a connection may go to. Blocking: name server."""
    text = check_url(url)
    scheme, host, port = _parts(text, PROVIDER_SCHEMES, what="provider")
    return Target(text, scheme, host, port, resolve(host, port, scheme=scheme))


def check_webhook(url: str) -> str:
    """The normal form of a receiver's address, checked without the network; it may have a query. Raises AddressRefused."""
    text = _plain(url)
    _parts(text, WEBHOOK_SCHEMES, what="webhook")
    return text


def open_webhook(url: str) -> Target:
    """A receiver's address at connect time, with the addresses that a connection may go to. Blocking: name server."""
    text = check_webhook(url)
    scheme, host, port = _parts(text, WEBHOOK_SCHEMES, what="webhook")
    return Target(text, scheme, host, port, resolve(host, port, scheme=scheme))


def resolve(host: str, port: int, *, scheme: str = "https") -> tuple[str, ...]:
    """The addresses of a host, all of them allowed. Raises when one isn't: a mixed answer is an attack on its own.

    For plain `http` every address must lie in ALLOWED_PRIVATE_NETWORKS.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UpstreamUnreachable(
            f"The host {host} is not known to the name server.",
            next_step="Check the spelling of the address.",
        ) from error
    addresses = tuple(dict.fromkeys(str(entry[4][0]).split("%")[0] for entry in found))
    for text in addresses:
        check_address(text, host=host, scheme=scheme)
    return addresses


def check_address(address: str, *, host: str = "", scheme: str = "https") -> None:
    """Raise AddressRefused when a connection to this IP address is not allowed."""
    ip = ipaddress.ip_address(address)
    name = f"{host} ({address})" if host and host != address else address
    if _named_by_manager(ip):
        return
    if scheme == "http":
        raise AddressRefused(
            f"{name} would be spoken to without encryption.",
            next_step="Use https, or have its network listed in DEVAIPOD_ALLOWED_PRIVATE_NETWORKS.",
        )
    if not _public(ip):
        raise AddressRefused(
            f"{name} is in a private network, and no manager has allowed it.",
            next_step="A manager can list the network in DEVAIPOD_ALLOWED_PRIVATE_NETWORKS (CIDR).",
        )


def _public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return _public(inner)
        if ip.teredo is not None:
            return False
    elif ip in _SHARED:
        return False
    return ip.is_global and not ip.is_multicast


def _named_by_manager(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    for text in settings.ALLOWED_PRIVATE_NETWORKS:
        network = ipaddress.ip_network(text.strip(), strict=False)
        if network.version == ip.version and ip in network:
            return True
    return False


def _plain(url: str) -> str:
    text = url.strip()
    if not text:
        raise AddressRefused("An address is missing.", next_step="Enter one, for example https://…")
    if len(text) > 500 or not text.isprintable() or any(c.isspace() for c in text):
        raise AddressRefused(
            "The address contains blanks or control characters, or is longer than 500 characters.",
            next_step="Copy it again from the forge's page.",
        )
    if text.startswith("-"):
        raise AddressRefused(
            "An address must not start with a dash.", next_step="Use https://… or /a/path."
        )
    return text


def _parts(text: str, schemes: dict[str, int], *, what: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address in URL form; raises AddressRefused."""
    names = ", ".join(schemes)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(
            f"{text} is not an address: {error}.", next_step="Use https://host/path."
        ) from error
    scheme = parts.scheme.lower()
    if scheme not in schemes:
        raise AddressRefused(
            f"A {what} cannot be reached by {scheme or 'this kind of address'!r}.",
            next_step=f"Allowed are: {names}"
            + (", and local paths below an allowed folder." if what == "repository" else "."),
        )
    host = (parts.hostname or "").rstrip(".")
    literal = ":" in host
    if not host or not (literal or _HOST.match(host)):
        raise AddressRefused(
            f"{text} names no host that could be reached.", next_step="Use https://host/path."
        )
    if parts.password or (parts.username and scheme != "ssh"):
        raise AddressRefused(
            "The address contains credentials; everyone who sees it would see them.",
            next_step="Remove the part before the @.",
        )
    if parts.username and not re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._-]*", parts.username):
        raise AddressRefused("The user name in the address is not one.", next_step="Use git@host.")
    if parts.fragment or (parts.query and what != "webhook"):
        raise AddressRefused(
            "The address has a part after ? or #, which is not sent.", next_step="Remove it."
        )
    if what == "repository" and (not parts.path.strip("/") or parts.path.startswith("/-")):
        raise AddressRefused(
            f"{text} names a host and no repository on it.",
            next_step="Add the repository's path, as in https://forge.example/team/name.git.",
        )
    return scheme, host, port or schemes[scheme]


def _local_path(text: str) -> Path:
    """A local repository's real path, when it lies below an allowed folder and not in the installation's own."""
    if text.lower().startswith("file:"):
        match = re.fullmatch(r"(?i)file://(?:localhost)?(/.*)", text)
        if match is None:
            raise AddressRefused(
                f"{text} is not a local path.", next_step="Write it as /folder/name.git."
            )
        text = match[1]
    path = Path(text).resolve()
    own = home.home().resolve()
    sample = home.sample_dir().resolve()
    if path.is_relative_to(sample) and path != sample:
        return path
    roots = [Path(root).resolve() for root in settings.LOCAL_REPOSITORY_ROOTS]
    inside = any(path.is_relative_to(root) for root in roots)
    if not inside or path.is_relative_to(own) or own.is_relative_to(path):
        raise AddressRefused(
            f"The path {text} is not below a folder that may hold repositories.",
            next_step="A manager can name such folders in DEVAIPOD_LOCAL_REPOSITORY_ROOTS (never the installation's own).",
        )
    return path
