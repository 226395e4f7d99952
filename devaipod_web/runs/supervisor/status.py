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
    backend_error: str = ""


service = ServiceStatus()
