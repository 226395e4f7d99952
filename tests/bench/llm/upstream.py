"""The scripted upstream that every proxy of the benchmark stands before: one process, raw ASGI, no work of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

CHUNKS = 50
USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
FRAME = {"id": "chatcmpl-1", "created": 1, "model": "gpt-4o", "system_fingerprint": "fp"}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    value = {**FRAME, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


STREAM = [
    _chunk({"role": "assistant", "content": ""}),
    *(_chunk({"content": f"word{number} "}) for number in range(CHUNKS - 3)),
    _chunk({}, "stop"),
    b"data: "
    + json.dumps(
        {**FRAME, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
    ).encode()
    + b"\n\ndata: [DONE]\n\n",
]
WHOLE = json.dumps(
    {
        **FRAME,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there."},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
).encode()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request, as a stream of `CHUNKS` pieces where it asks for one."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    streamed = b'"stream":true' in body.replace(b" ", b"")
    kind = b"text/event-stream" if streamed else b"application/json"
    headers = [(b"content-type", kind)]
    if not streamed:
        headers.append((b"content-length", str(len(WHOLE)).encode()))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for piece in STREAM if streamed else []:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    last = b"" if streamed else WHOLE
    await send({"type": "http.response.body", "body": last, "more_body": False})


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        application, port=int(sys.argv[1]), loop="uvloop", http="httptools",
        access_log=False, lifespan="off", log_level="error",
    )  # fmt: skip
