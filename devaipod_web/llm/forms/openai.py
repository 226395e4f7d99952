"""What OpenAI's two forms share: errors, lists of models, and parts of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from devaipod_web.llm.errors import ModelError
from devaipod_web.llm.forms.base import whole
from devaipod_web.llm.forms.table import (
    folded,
    is_data_address,
    objects,
    refuse_address,
    refuse_stored,
)

#: Members that hold content, by their folded name, and what is in them. Servers find them by the part's type, some by the
#: member alone (vLLM), and some in whatever case; so a member counts wherever it stands.
ADDRESSES = {
    "imageurl": "picture",
    "videourl": "film",
    "audiourl": "sound",
    "documenturl": "document",
    "fileurl": "document",
}
#: Content itself, as base64; some servers take an address in its place.
DATA = frozenset({"filedata", "inputaudio"})
PICTURES = ("image_url", "video_url", "audio_url", "input_image", "input_video")
ADDRESSED = (*PICTURES, "document_url", "file_url", "computer_screenshot")
FILES = ("file", "input_file")
OTHER = (
    *FILES,
    "input_audio",
    "audio_url",
    "video_url",
    "input_video",
    "video",
    "document_url",
    "file_url",
)


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
        found = False
        for name, member in part.items():
            meant = _holds(name)
            if not meant:
                continue
            if meant in ADDRESSES and member is not None:
                _check_address(member, media)
                media.other = media.other or meant != "imageurl"
                found = True
            elif meant == "fileid" and member:
                raise refuse_stored("A file or an image")
            elif meant in DATA:
                _check_data(member)
                media.other = True
            elif meant == "audio" and isinstance(member, dict) and member.get("id"):
                raise refuse_stored("The sound of an earlier answer")
        if not isinstance(kind, str):
            continue
        if kind == "item_reference":
            raise refuse_stored("An item of the conversation")
        if kind in ADDRESSED and not found:
            raise refuse_address()
        if kind == "video":
            frames = part.get("video")
            for frame in frames if isinstance(frames, list) else [frames]:
                _check_address(frame, media)
        if kind in FILES:
            holder = part.get(kind)
            if not (holder if isinstance(holder, dict) else part).get("file_data"):
                raise refuse_stored("A file without its data (file_data)")
        media.other = media.other or kind in OTHER
    return media


@lru_cache(maxsize=4096)
def _holds(name: str) -> str:
    """The folded name of a member that `check_parts` looks into; empty for any other."""
    meant = folded(name)
    return meant if meant in ADDRESSES or meant in DATA or meant in ("fileid", "audio") else ""


def _check_address(holder: object, media: Media) -> None:
    address = holder.get("url") if isinstance(holder, dict) else holder
    if not isinstance(address, str) or not is_data_address(address):
        raise refuse_address()
    media.pictures += 1
    media.characters += len(address)


def _check_data(holder: object) -> None:
    data = holder.get("data") if isinstance(holder, dict) else holder
    # Base64 has no colon, and an address always has.
    if isinstance(data, str) and ":" in data and not is_data_address(data):
        raise refuse_address()


def total_received(usage: Mapping[str, Any], sent: int, received: int) -> int:
    """All output. xAI, and Google in this form, leave what the model thought out of the count of the answer, but not out of the total."""
    return max(received, whole(usage.get("total_tokens")) - sent)


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
