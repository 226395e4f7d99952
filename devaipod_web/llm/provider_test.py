"""The test button: ask a provider as a run would, with its key, for something that costs nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from dataclasses import dataclass, field

from devaipod_web import __version__
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import pinned, upstream, vertex
from devaipod_web.llm.errors import ModelError
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.llm.routing import Upstream
from devaipod_web.llm.snapshot import upstream_of
from devaipod_web.llm.upstream import masked

MAX_MODELS = 500
#: What Vertex AI is asked: it has no list of models with a project's key, and counting tokens costs nothing.
VERTEX_MODEL = "gemini-2.5-flash"
HINTS = {
    ProviderKind.OPENAI: "The base address usually ends in /v1.",
    ProviderKind.ANTHROPIC: "The base address is that of the API, without /v1/messages.",
    ProviderKind.GEMINI: "The base address is that of the API, without /v1beta.",
    ProviderKind.VERTEX: "The base address ends in /projects/PROJECT/locations/LOCATION.",
}


@dataclass(frozen=True)
class Tested:
    """What a provider answered to a question for its models."""

    ok: bool
    message: str
    next_step: str = ""
    milliseconds: int = 0
    models: list[str] = field(default_factory=list)


def test(provider: Provider) -> Tested:
    """Ask the provider for its models (Vertex AI: for a count of tokens). Blocking, at most some ten seconds."""
    if provider.kind == ProviderKind.DEMO:
        return Tested(ok=True, message="The scripted demo is built in and always answers.")
    to = upstream_of(provider)
    if to.trouble:
        return Tested(ok=False, message=to.trouble)
    began = time.monotonic()
    try:
        status, _, body = _asked(to)
    except ModelError as error:
        return Tested(ok=False, message=error.message, next_step=error.next_step)
    except ForgeError as error:
        return Tested(ok=False, message=error.message, next_step=error.next_step)
    except (OSError, http.client.HTTPException) as error:
        words = masked(str(error), to.key)[:200] or type(error).__name__
        return Tested(
            ok=False,
            message=f"The provider does not answer: {words}.",
            next_step="Check the address and that this host may reach it.",
        )
    return _judge(to, status, body, int((time.monotonic() - began) * 1000))


def _asked(to: Upstream) -> tuple[int, dict[str, str], bytes]:
    base = to.base_url.rstrip("/")
    headers = {"Accept": "application/json", "User-Agent": f"devaipod/{__version__}"}
    headers |= asyncio.run(_credential(to))
    match to.kind:
        case ProviderKind.ANTHROPIC:
            base = base if base.endswith("/v1") else f"{base}/v1"
            headers["anthropic-version"] = "2023-06-01"
            return pinned.request(f"{base}/models?limit=1000", headers=headers)
        case ProviderKind.GEMINI:
            base = base if base.endswith(("/v1beta", "/v1")) else f"{base}/v1beta"
            return pinned.request(f"{base}/models?pageSize=1000", headers=headers)
        case ProviderKind.VERTEX:
            url = f"{base}/publishers/google/models/{VERTEX_MODEL}:countTokens"
            asked = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
            headers["Content-Type"] = "application/json"
            body = json.dumps(asked).encode()
            return pinned.request(url, method="POST", body=body, headers=headers)
        case _:
            return pinned.request(f"{base}/models", headers=headers)


async def _credential(to: Upstream) -> dict[str, str]:
    """The header with the key; a token of Vertex AI's is fetched for this test alone, so that the key itself is tested."""
    if to.kind == ProviderKind.VERTEX and to.key:
        return {"Authorization": f"Bearer {await vertex.Tokens().of(to.name, to.key)}"}
    return await upstream.credential(to)


def _judge(to: Upstream, status: int, body: bytes, milliseconds: int) -> Tested:
    if status in (401, 403):
        return Tested(
            ok=False,
            message=f"The provider refuses the key ({status}).",
            next_step="Enter a valid key.",
            milliseconds=milliseconds,
        )
    if 300 <= status < 400:
        return Tested(
            ok=False,
            message=f"The provider sends elsewhere ({status}), and redirects are not followed.",
            next_step="Enter the address that it redirects to.",
            milliseconds=milliseconds,
        )
    hint = HINTS[ProviderKind(to.kind)]
    if status != 200:
        words = masked(" ".join(body[:300].decode(errors="replace").split()), to.key)
        return Tested(
            ok=False,
            message=f"The provider answers {status}: {words}",
            next_step=hint,
            milliseconds=milliseconds,
        )
    try:
        models = _models(to.kind, json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        kind = str(ProviderKind(to.kind).label)
        return Tested(
            ok=False,
            message=f"Something answers there, and not as a provider of the kind {kind} does.",
            next_step=hint,
            milliseconds=milliseconds,
        )
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    said = "It answers and counts tokens." if not models else f"It answers and offers {count}."
    return Tested(ok=True, message=said, milliseconds=milliseconds, models=models)


def _models(kind: str, value: object) -> list[str]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    if kind == ProviderKind.VERTEX:
        int(value["totalTokens"])
        return []
    if kind == ProviderKind.GEMINI:
        names = [str(row["name"]).removeprefix("models/") for row in value["models"][:MAX_MODELS]]
    else:
        names = [str(row["id"]) for row in value["data"][:MAX_MODELS]]
    return sorted(name[:200] for name in names)
