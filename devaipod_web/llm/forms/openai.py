"""What OpenAI's two forms share: errors, lists of models, and parts of a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from devaipod_web.llm.errors import ModelError
from devaipod_web.llm.forms.table import is_data_address, objects, refuse_address, refuse_stored

#: Types of parts with an address → the name of the address in them.
ADDRESSED = {
    "image_url": "url",
    "video_url": "url",
    "audio_url": "url",
    "input_image": "image_url",
    "input_video": "video_url",
    "computer_screenshot": "image_url",
}
FILES = ("file", "input_file")
SOUND = ("input_audio", "audio_url", "video_url", "input_video")


@dataclass
class Media:
    """Pictures and the like in a conversation; their tokens don't follow from their size."""

    pictures: int = 0
    characters: int = 0
    other: bool = False


def check_parts(value: object) -> Media:
    """Refuse content that the provider would fetch or look up, and count the pictures. Raises `RequestRefused`."""
    media = Media()
    for part in objects(value):
        kind = part.get("type")
        if not isinstance(kind, str):
            continue
        holder = part.get(kind)
        if kind in ADDRESSED:
            _check_address(part, holder, ADDRESSED[kind], media)
        elif kind in FILES:
            _check_file(holder if isinstance(holder, dict) else part)
        if kind in FILES or kind in SOUND:
            media.other = True
    return media


def _check_address(part: dict[str, Any], holder: object, name: str, media: Media) -> None:
    if part.get("file_id") and not part.get(name):
        raise refuse_stored("An image")
    address = holder.get(name) if isinstance(holder, dict) else holder
    address = address or part.get(name)
    if isinstance(address, dict):
        address = address.get("url")
    if not isinstance(address, str) or not is_data_address(address) or part.get("file_id"):
        raise refuse_address()
    media.pictures += 1
    media.characters += len(address)


def _check_file(details: dict[str, Any]) -> None:
    if details.get("file_id") or details.get("file_url"):
        raise refuse_stored("A file (by id or address)")
    if not details.get("file_data"):
        raise refuse_stored("A file without its data (file_data)")


def error_body(status: int, message: str, code: str) -> dict[str, Any]:
    """OpenAI's error form."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 402:
        kind = "insufficient_quota"
    elif status == 429:
        kind = "rate_limit_exceeded"
    return {"error": {"message": message, "type": kind, "code": code, "param": None}}


def failed_response(error: ModelError) -> dict[str, Any]:
    """The error inside a `response.failed` event."""
    return {"code": error.code, "message": error.sentence}


def model_list(names: Iterable[str]) -> dict[str, Any]:
    """OpenAI's list of models."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "devaipod"} for name in names
        ],
    }
