"""How the sender of this process is, for the services' line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass
class SenderStatus:
    """`lag_seconds` is for how long the oldest of the `due` deliveries has waited for its attempt; near 0 when all is well."""

    running: bool = False
    started_at: datetime | None = None
    last_beat: datetime | None = None
    due: int = 0
    lag_seconds: float = 0.0
    in_flight: int = 0
    last_error: str = ""
    last_error_at: datetime | None = None


sender = SenderStatus()
