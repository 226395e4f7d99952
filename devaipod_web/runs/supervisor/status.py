"""How the supervisor of this process is: read by the service `supervisor` (`health/checks/loops.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class ServiceStatus:
    """`last_beat` is when the loop last went round; `last_error` what it last could not do, and when."""

    running: bool = False
    started_at: datetime | None = None
    owner: str = ""
    last_beat: datetime | None = None
    lag_seconds: float = 0.0
    last_error: str = ""
    last_error_at: datetime | None = None
    driven: set[str] = field(default_factory=set)
    backend: str = ""
    #: Why a target does not answer, by its name; empty while it does.
    backend_errors: dict[str, str] = field(default_factory=dict)

    @property
    def backend_error(self) -> str:
        """Which targets do not answer and why, in one line; empty while all do."""
        told = {name: error for name, error in self.backend_errors.items() if error}
        if list(told) == ["podman"]:
            return told["podman"]
        return "; ".join(f"{name}: {error}" for name, error in sorted(told.items()))


service = ServiceStatus()
