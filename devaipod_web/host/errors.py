"""What can go wrong while a host is set up.

HostError                      str() says what failed, why, and the next step
├── CommandFailed              a program that we ran ended badly; carries its last lines
├── PackagesMissing            the system's packages are not there and we may not install them
└── ServiceFailed              podman's service or our server did not come up
"""

from __future__ import annotations


class HostError(Exception):
    """The host is not what it must be. `str()` is a sentence with the next step."""


class CommandFailed(HostError):
    """A program ended with another status than 0, or was not there, or took too long."""

    def __init__(self, message: str, *, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class PackagesMissing(HostError):
    """Packages of the system are missing; the message carries the one command that installs them."""


class ServiceFailed(HostError):
    """A process of ours that should listen does not; the message names its log."""
