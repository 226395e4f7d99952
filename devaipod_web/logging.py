"""Logs: one event one line, structured, with run and pod bound; a secret cannot be logged.

`DEVAIPOD_LOG_FORMAT` is `console` or `json` (default: console on a terminal, else json), `DEVAIPOD_LOG_LEVEL` a level of Python's
logging (default INFO). Standard logging (Django, uvicorn, aiohttp) takes the same way, so the mask covers what libraries say too.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from devaipod_web.masking import MASK, SECRET_NAMES, mask_text

MAX_DEPTH = 6


def mask_secrets(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """The processor that masks secrets in every field of an event, by name and by form."""
    return {key: _mask(key, value, 0) for key, value in event.items()}


def _mask(key: str, value: Any, depth: int) -> Any:
    if key.startswith("_"):  # the record itself; the formatter takes it away
        return value
    if SECRET_NAMES.search(key) and value not in (None, "", 0, False):
        return MASK
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, bytes):
        return mask_text(value.decode(errors="replace"))
    if value is None or isinstance(value, (int, float)):
        return value
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {k: _mask(str(k), v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_mask("", item, depth + 1) for item in value]
    return mask_text(repr(value))


def _one_line(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """A text from outside must not begin a line of its own in the log."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = value.replace("\r", "\\r").replace("\n", "\\n")
    return event


def processors() -> list[Processor]:
    """What every event passes before it is rendered; the mask comes last."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        mask_secrets,
        _one_line,
    ]


def configure(*, form: str = "", level: str = "", stream: Any = None) -> None:
    """Set up structlog and standard logging for this process. Safe to repeat."""
    out = stream or sys.stderr
    form = form or os.environ.get("DEVAIPOD_LOG_FORMAT", "")
    level = (level or os.environ.get("DEVAIPOD_LOG_LEVEL", "") or "INFO").upper()
    if form not in ("console", "json"):
        form = "console" if out.isatty() else "json"
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if form == "console"
        else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "django", "django.server"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    for name in ("asyncio", "uvicorn.error", "aiohttp.access", "urllib3", "podman", "websockets"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
