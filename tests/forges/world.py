"""Real repositories for tests: an upstream, a production, and an agent's clone of a run's repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from devaipod_web.forges import staging
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def sh(folder: Path, *args: str, stdin: bytes = b"") -> str:
    """Run git as a person would, in a folder; its output without the last newline."""
    done = subprocess.run(
        ["git", *args], cwd=folder, env=ENV, input=stdin, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").rstrip("\n")


class World:
    """An upstream with one commit on main, an empty production, a project and one run that starts from there."""

    def __init__(self, folder: Path, project: Project, run: Run) -> None:
        self.folder, self.project, self.run = folder, project, run
        self.upstream, self.production = folder / "upstream.git", folder / "production.git"
        self.author, self.agent = folder / "author", folder / "agent"
        sh(folder, "init", "-q", "--bare", "-b", "main", str(self.upstream))
        sh(folder, "init", "-q", "--bare", "-b", "main", str(self.production))
        sh(folder, "init", "-q", "-b", "main", str(self.author))
        self.publish({"README.md": "hello\n", "src/app.py": "print('one')\nprint('two')\n"})
        project.upstream_url, project.production_url = str(self.upstream), str(self.production)
        project.save()
        run.branch = f"agent/{run.key}/work"
        run.save()

    def publish(self, files: dict[str, str], branch: str = "main") -> str:
        """Commit files and push them to the upstream, as its people do."""
        write(self.author, files)
        sh(self.author, "add", "-A")
        sh(self.author, "commit", "-qm", "Upstream")
        sh(self.author, "push", "-q", str(self.upstream), f"HEAD:refs/heads/{branch}")
        return sh(self.author, "rev-parse", "HEAD")

    def prepare(self) -> Path:
        """Mirror, resolve, make the run's repository and clone it for the agent; returns the repository."""
        staging.ensure_mirror(self.project)
        self.run.base_commit = staging.resolve(self.project, "main")
        self.run.save()
        repository = staging.ensure_run_repository(self.project, self.run)
        sh(self.folder, "clone", "-q", str(repository), str(self.agent))
        return repository

    def work(self, files: dict[str, str | bytes], message: str = "Work") -> str:
        """The agent commits files (not pushed yet); returns the commit."""
        write(self.agent, files)
        sh(self.agent, "add", "-A")
        sh(self.agent, "commit", "-qm", message)
        return sh(self.agent, "rev-parse", "HEAD")

    def push(self, source: str = "HEAD") -> str:
        """The agent pushes to its branch; returns the commit."""
        sh(self.agent, "push", "-q", "--force", "origin", f"{source}:refs/heads/{self.run.branch}")
        return sh(self.agent, "rev-parse", source)

    def promoted(self) -> dict[str, str]:
        """The branches of production: name → commit."""
        listed = sh(self.production, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)")
        return dict(line.split(" ") for line in listed.splitlines())


def write(folder: Path, files: dict[str, str] | dict[str, str | bytes]) -> None:
    """Write files below a folder, making the folders between."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
