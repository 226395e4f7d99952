"""What a person is told when something with a repository could not be done.

ForgeError
├── AddressRefused          the guard does not let this address be used
├── UpstreamUnreachable     nothing answers there, or not as a git server
├── RepositoryMissing       a server answers, and has no such repository
├── AuthenticationRefused   the server wants credentials, or refused those it got
├── BranchMissing           the repository has no such branch
├── BranchMoved             the branch is not where it was expected
├── PushRefused             the other side did not take the push
├── TooLarge                more bytes, commits or files than the limit
├── Corrupt                 objects that git's own check refuses
├── TimedOut                git did not end before its deadline
├── Busy                    another operation holds the repository
└── GitFailed               anything else that git said no to, with its words
"""

from __future__ import annotations

import re

from devaipod_web.errors import DevaipodError


class ForgeError(DevaipodError):
    """Something with a repository could not be done. `message` and `next_step` are sentences; both are shown."""

    code = "forge-error"
    status = 502


class AddressRefused(ForgeError):
    """The guard does not let this address be used: scheme, private network, or a path outside the roots."""

    code = "address-refused"
    status = 400


class UpstreamUnreachable(ForgeError):
    """Nothing answers at the address, or what answers is not a git server."""

    code = "upstream-unreachable"


class RepositoryMissing(ForgeError):
    """There is no repository at the address (some forges say so for private ones too)."""

    code = "repository-missing"


class AuthenticationRefused(ForgeError):
    """The server wants credentials, or refused those it got."""

    code = "authentication-refused"


class BranchMissing(ForgeError):
    """The repository has no such branch."""

    code = "branch-missing"
    status = 409


class BranchMoved(ForgeError):
    """The branch is at another commit than expected."""

    code = "branch-moved"
    status = 409


class PushRefused(ForgeError):
    """The other side did not take the push."""

    code = "push-refused"


class TooLarge(ForgeError):
    """More bytes, commits or files than the limit."""

    code = "too-large"
    status = 413


class Corrupt(ForgeError):
    """The other side sent objects that git's own check refuses."""

    code = "corrupt-objects"


class TimedOut(ForgeError):
    """Git did not end before its deadline; its processes were ended."""

    code = "git-timed-out"
    status = 504


class Busy(ForgeError):
    """Another operation holds the repository's lock for longer than one waits."""

    code = "repository-busy"
    status = 503


class GitFailed(ForgeError):
    """Git said no to something in words that no row of the table below knows. `words` are git's own, cut."""

    code = "git-failed"

    def __init__(self, message: str, *, next_step: str = "", words: str = "") -> None:
        super().__init__(message, next_step=next_step)
        self.words = words


_CREDENTIALS = (
    "Credentials of production forges come with a later version: use a public https address, or a local path below a "
    "folder of DEVAIPOD_LOCAL_REPOSITORY_ROOTS."
)

#: What git writes (LC_ALL=C) → the error, its sentence ({what} is the address or repository) and the next step. First match.
_TABLE: tuple[tuple[str, type[ForgeError], str, str], ...] = (
    (
        r"Could not resolve host",
        UpstreamUnreachable,
        "The host of {what} is not known to the name server.",
        "Check the spelling of the address.",
    ),
    (
        r"could not read Username|Authentication failed|HTTP Basic: Access denied|terminal prompts disabled"
        r"|returned error: 40[13]|Permission denied \(|Host key verification failed|No \S+ host key is known",
        AuthenticationRefused,
        "{what} wants credentials, and there are none for it.",
        _CREDENTIALS,
    ),
    (
        r"dubious ownership",
        AddressRefused,
        "{what} belongs to another user of this host, and git refuses to run there.",
        "Give the folder to the user that runs devaipod, or use an https address.",
    ),
    (
        r"does not appear to be a git repository|repository '[^']*' (does not exist|not found)|returned error: 404"
        r"|Repository not found|not a git repository|is this a git repository",
        RepositoryMissing,
        "There is no git repository at {what}.",
        "Check the address; forges answer the same for a private repository.",
    ),
    (
        r"unable to update url base from redirection|returned error: 30\d",
        UpstreamUnreachable,
        "{what} redirects to another address, and redirects are not followed.",
        "Enter the address that it redirects to (open it in a browser to see it).",
    ),
    (
        r"transport '[^']*' not allowed|protocol '[^']*' is not supported",
        AddressRefused,
        "The address {what} uses a transport that is not allowed.",
        "Use https, ssh, or a local path below an allowed folder.",
    ),
    (
        r"signal 25|File too large|exceeds maximum allowed size",
        TooLarge,
        "{what} sent more data than the limit allows.",
        "Use a smaller repository, or ask a manager to raise the limit.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        GitFailed,
        "The disk of this installation is full.",
        "Free space below DEVAIPOD_HOME, then try again.",
    ),
    (
        r"fsck error|badTree|hasDot|fsck.*error",
        Corrupt,
        "{what} contains objects that git's check refuses.",
        "Run `git fsck` on it; a repository with such objects is not mirrored.",
    ),
    (
        r"stale info|already exists|non-fast-forward|fetch first|reference already exists",
        BranchMoved,
        "The branch exists already at {what}, at another commit.",
        "Promote to a branch with another name, or remove that one.",
    ),
    (
        r"pre-receive hook declined|update hook declined|protected branch|remote rejected|\[rejected\]|"
        r"unpack failed|denying non-fast-forward",
        PushRefused,
        "{what} did not take the push.",
        "Its own words are below: its rules for branches decide.",
    ),
    (
        r"(?i)failed to connect|connection (refused|timed out|reset)|ssl|certificate|network is unreachable|no route"
        r"|unable to access|early eof|hung up unexpectedly|could not read from remote|empty reply",
        UpstreamUnreachable,
        "{what} does not answer as a git server.",
        "Check the address and that this host may reach it.",
    ),
)


def from_git(words: str, *, what: str) -> ForgeError:
    """The error that git's standard error stands for. `what` names the address or repository in the sentence."""
    short = _tidy(words)
    for pattern, kind, sentence, step in _TABLE:
        if not re.search(pattern, words):
            continue
        message = sentence.format(what=what)
        if kind in (PushRefused, UpstreamUnreachable, Corrupt):
            message = f"{message} Git says: {short}"
        return kind(message, next_step=step)
    return GitFailed(
        f"Git could not do this with {what}: {short or 'it gave no reason'}",
        next_step="Try again; if it stays, the server's log has the whole output.",
        words=short,
    )


def _tidy(words: str) -> str:
    """Git's last words on one line, without control characters, at most 400 characters."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    useful = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "!"))]
    text = "; ".join((useful or lines)[-4:])
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[-400:]
