"""What can go wrong between us and a container backend.

BackendError
├── BackendUnavailable     the daemon or API server does not answer
├── PodNotFound            no pod (or container) of that name
├── ImageError
│   ├── ImageMissing       no such image, here or at the registry
│   └── PullRefused        the registry refused the credential, or the image is not allowed
├── QuotaExceeded          memory, disk, processes or a limit of the cluster is used up
├── PodRefused             the document was refused: unsafe or contradictory
└── StartFailed            the container was made and did not start
"""

from __future__ import annotations


class BackendError(Exception):
    """Anything a container backend could not do.

    `message` says what failed and why, `next_step` what a person can do; both are shown as they are.
    """

    code = "backend-error"

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class BackendUnavailable(BackendError):
    """The daemon's socket or the API server does not answer; the call may be repeated later."""

    code = "backend-unavailable"


class PodNotFound(BackendError):
    """No pod or container of that name is there; repeating the call will not help."""

    code = "pod-not-found"


class ImageError(BackendError):
    """An image could not be had."""

    code = "image-error"


class ImageMissing(ImageError):
    """The image is neither in the local store nor at its registry."""

    code = "image-not-found"


class PullRefused(ImageError):
    """The registry refused us, or the reference is not one that may be pulled."""

    code = "pull-refused"


class QuotaExceeded(BackendError):
    """The host or cluster has no room for what was asked."""

    code = "quota-exceeded"


class PodRefused(BackendError):
    """The pod's specification is unsafe or contradicts itself; nothing was created."""

    code = "pod-refused"


class StartFailed(BackendError):
    """A container was created and its runtime could not start it."""

    code = "start-failed"
