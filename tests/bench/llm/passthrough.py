"""The floor: a bare ASGI pass-through. No token, no route, no budget, no metering; bytes in, bytes out."""

from __future__ import annotations

import sys
from typing import Any

import aiohttp

UPSTREAM = f"http://127.0.0.1:{sys.argv[2]}" if len(sys.argv) > 2 else ""
session: aiohttp.ClientSession | None = None


async def application(scope: Any, receive: Any, send: Any) -> None:
    global session
    if scope["type"] != "http":
        return
    if session is None:
        session = aiohttp.ClientSession(read_bufsize=256 * 1024)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    async with session.post(
        UPSTREAM + scope["path"], data=body, headers={"Content-Type": "application/json"}
    ) as answer:
        headers = [(b"content-type", answer.headers["Content-Type"].encode())]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        while piece := await answer.content.readany():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(
        application, port=int(sys.argv[1]), loop="uvloop", http="httptools",
        access_log=False, lifespan="off", log_level="error",
    )  # fmt: skip
