"""What a review's page shows of the change: the list of files with their marks, one file's lines, commits, the promote form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.utils.safestring import SafeString

from devaipod_web import home
from devaipod_web.forges.errors import ForgeError
from devaipod_web.forges.git import git
from devaipod_web.reviews import changes, diff
from devaipod_web.reviews.diff import FileDiff, FileEntry
from devaipod_web.reviews.errors import ReviewError
from devaipod_web.reviews.models import Review
from devaipod_web.reviews.risks import Risk
from devaipod_web.reviews.services.promote import default_branch, production_url

#: Words for the badge beside a file.
BADGES = {
    "ci": "CI",
    "owners": "owners",
    "git": "git",
    "submodule": "submodule",
    "symlink": "link",
    "bidi": "hidden text",
    "control": "control chars",
    "name": "odd name",
    "binary": "binary",
    "large": "large",
    "executable": "executable",
    "dependency": "dependency",
}


@dataclass(frozen=True)
class ListedFile:
    """A file in the list beside the diff."""

    entry: FileEntry
    url: str
    current: bool
    badges: list[tuple[str, bool]]


@dataclass(frozen=True)
class Folder:
    """Files of one folder that stand together in git's order."""

    name: str
    files: list[ListedFile]

    @property
    def html(self) -> SafeString:
        """Its name, safe to show."""
        return diff.to_html(self.name)


@dataclass(frozen=True)
class ChangePage:
    """The Files tab. `problem` is set when the repository could not be read; the rest is empty then."""

    folders: list[Folder] = field(default_factory=list)
    shown: FileDiff | None = None
    risks: list[Risk] = field(default_factory=list)
    count: int = 0
    position: int = 0
    previous: str = ""
    next: str = ""
    full_url: str = ""
    short_url: str = ""
    missing: str = ""
    note: str = ""
    problem: Exception | None = None


def change(review: Review, *, file: str, full: bool) -> ChangePage:
    """The files of a review and the lines of one (the first unless `file` names another), with all lines when `full`."""
    repository = home.run_repository(review.run.project.key, review.run.key)
    try:
        entries = diff.listing(repository, review.base, review.head)
        if not entries:
            return ChangePage()
        chosen = next((entry for entry in entries if entry.path == file), None)
        current = chosen or entries[0]
        context = diff.FULL_CONTEXT if full else diff.CONTEXT
        shown = diff.files(
            repository, review.base, review.head, entries=[current], context=context
        ).files[0]
    except ForgeError as error:
        return ChangePage(problem=error)
    visible = entries[: diff.MAX_FILES]
    if current not in visible:
        visible = [*visible, current]
    position = entries.index(current)
    return ChangePage(
        folders=_folders(review, visible, current),
        shown=shown,
        risks=[risk for risk in review.risks if risk["path"] == current.path],
        count=len(entries),
        position=position + 1,
        previous=_url(entries[position - 1]) if position else "",
        next=_url(entries[position + 1]) if position + 1 < len(entries) else "",
        full_url="" if full or not _has_gaps(shown) else _url(current, lines="all"),
        short_url=_url(current) if full else "",
        missing=file if file and chosen is None else "",
        note=(
            f"{len(entries) - diff.MAX_FILES} more files are not listed; the patch has them all."
            if len(entries) > diff.MAX_FILES
            else ""
        ),
    )


def _has_gaps(shown: FileDiff) -> bool:
    """Whether unchanged lines of the file may be hidden. A file that was added or removed has none."""
    return bool(shown.hunks) and shown.entry.status not in ("added", "deleted")


def _url(entry: FileEntry, **more: str) -> str:
    return "?" + urlencode({"file": entry.path, **more})


def _folders(review: Review, entries: list[FileEntry], current: FileEntry) -> list[Folder]:
    badges: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for risk in review.risks:
        if risk["code"] in BADGES:
            badges[risk["path"]].append((BADGES[risk["code"]], risk["tick"]))
    folders: list[Folder] = []
    for entry in entries:
        # A folder that git's order comes back to gets its heading again: the list is in the order of j and k.
        if not folders or folders[-1].name != entry.folder:
            folders.append(Folder(entry.folder, []))
        folders[-1].files.append(
            ListedFile(entry, _url(entry), entry is current, badges.get(entry.path, []))
        )
    return folders


def commits(review: Review) -> tuple[list[changes.Commit], Exception | None]:
    """The commits that would leave, the oldest first, or why they cannot be read."""
    repository = home.run_repository(review.run.project.key, review.run.key)
    try:
        return changes.commits(repository, review.base, review.head), None
    except (ForgeError, ReviewError) as error:
        return [], error


def behind(review: Review) -> int:
    """How many commits the upstream's branch has had since the base, as of the last fetch; 0 when that is not known."""
    project = review.run.project
    try:
        counted = git(
            [
                "rev-list",
                "--count",
                f"--max-count={changes.MAX_COMMITS}",
                "--end-of-options",
                f"{review.base}..refs/heads/{project.upstream_branch}",
            ],
            repository=home.mirror_repository(project.key),
        )
        return int(counted)
    except (ForgeError, ValueError):
        return 0


def promote_form(review: Review, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the promote form shows: target, branch, commit, and the ticks that are needed, with what was entered before."""
    given = given or {}
    same = given.get("head", review.head) == review.head
    ticked = set(given.get("ticks", ())) if same else set()
    return {
        "target": production_url(review.run.project),
        "target_name": target_name(production_url(review.run.project)),
        "branch": given.get("branch") or default_branch(review.run),
        "prefix": review.run.project.production_prefix,
        "ticks": [
            {**risk, "checked": risk["id"] in ticked} for risk in review.risks if risk["tick"]
        ],
        "marks": [risk for risk in review.risks if not risk["tick"]],
    }


def target_name(url: str) -> str:
    """A short name of a repository's address for a button: its last two parts, without `.git`."""
    parts = [part for part in url.replace(":", "/").split("/") if part]
    return "/".join(parts[-2:]).removesuffix(".git")
