"""The API as the CLI calls it: plain http.client, so that `devaipod ps` starts fast.

Where the server is and who calls: DEVAIPOD_URL and DEVAIPOD_TOKEN, else the card of the server that runs on this host and the
token that `devaipod setup` left below DEVAIPOD_HOME.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from devaipod_web import home

API = "/api/devaipod"
TIMEOUT_SECONDS = 60.0
#: A followed stream sends a blank line at least every 15 s; silence for longer means that the connection is dead.
STREAM_TIMEOUT_SECONDS = 60.0
READ_BYTES = 65536
LOCAL_TOKEN = "cli.token"
#: What to do where the server's problem document names nothing.
NEXT_STEPS = {
    400: "`--help` of this verb explains what it takes.",
    401: "Make another token on the page Tokens, and set DEVAIPOD_TOKEN to it.",
    403: "Ask a manager.",
    404: "Check the name: `devaipod ps --all` lists runs, `devaipod review list` reviews. Without a role nothing is shown.",
    405: "The server does not know this verb: `devaipod status` names its version, and `--version` this command's.",
    409: "Look how it is now: `devaipod show RUN`.",
    422: "`--help` of this verb explains what it takes.",
}


class CliError(Exception):
    """What stops a command: a sentence, a next step and the exit status."""

    def __init__(self, message: str, *, next_step: str = "", status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.status = status


class ServerGone(CliError):
    """Nothing answers, or the connection broke. `refused`: nobody was there at all."""

    refused = False


class Refused(CliError):
    """The server said no. `code` is the problem's, `http_status` its status."""

    def __init__(self, message: str, *, next_step: str, code: str, http_status: int) -> None:
        super().__init__(message, next_step=next_step, status=4 if http_status == 404 else 1)
        self.code = code
        self.http_status = http_status


def server_url() -> str:
    """The server's address. Raises ServerGone when none is known."""
    named = os.environ.get("DEVAIPOD_URL", "")
    if named:
        return named.rstrip("/")
    try:
        card = json.loads(home.serve_card().read_text())
        return str(card["url"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        raise ServerGone(
            "No devaipod server runs for this installation.",
            next_step=f"Start it with {home.set_up()}; "
            "for a server elsewhere set DEVAIPOD_URL and DEVAIPOD_TOKEN.",
        ) from None


def token() -> str:
    """The bearer token. Raises CliError when there is none."""
    named = os.environ.get("DEVAIPOD_TOKEN", "")
    if named:
        return named.strip()
    if os.environ.get("DEVAIPOD_URL"):
        # The local token belongs to this host's server: it is never sent to another one.
        raise CliError(
            "DEVAIPOD_URL is set and DEVAIPOD_TOKEN is not.",
            next_step="Make a token on the server's page Tokens and set DEVAIPOD_TOKEN to it.",
        )
    try:
        return (home.home() / LOCAL_TOKEN).read_text().strip()
    except OSError:
        raise CliError(
            "There is no token for this installation.",
            next_step="Run `devaipod setup`, or set DEVAIPOD_TOKEN.",
        ) from None


class Client:
    """Calls to one server as one person. Each call has a connection of its own."""

    def __init__(
        self, url: str = "", bearer: str = "", *, seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self.url = url or server_url()
        self.bearer = bearer or token()
        self._seconds = seconds

    def get(self, path: str, **query: Any) -> Any:
        """The document at a path below the API's root. Raises ServerGone and Refused."""
        return self._json("GET", path, query=query)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        again: bool = False,
    ) -> Any:
        """Send a document and return the answer's. Raises ServerGone and Refused.

        `again`: safe to send twice (an idempotency key goes with it), so a connection that broke before the answer is tried anew.
        """
        try:
            return self._json(method, path, body=body, headers=headers)
        except ServerGone as error:
            if not again or error.refused:
                raise
        return self._json(method, path, body=body, headers=headers)

    def pages(self, path: str, *, limit: int = 0, **query: Any) -> Iterator[dict[str, Any]]:
        """The rows of a paged list, over all of its pages, at most `limit` (0: all)."""
        seen = 0
        while True:
            page = self.get(path, **query)
            for row in page["results"]:
                yield row
                seen += 1
                if limit and seen >= limit:
                    return
            if not page.get("next"):
                return
            cursor = dict(_pairs(page["next"]))
            query = {**query, **cursor}

    def text(self, path: str, **query: Any) -> str:
        """A plain text answer."""
        connection, response = self._open("GET", path, query=query)
        try:
            return response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def stream(
        self, path: str, *, opened: Callable[[], None] = lambda: None, **query: Any
    ) -> Iterator[dict[str, Any]]:
        """The documents of an NDJSON stream as they come; `opened` is called once it answers.

        Raises ServerGone when it breaks in the middle.
        """
        connection, response = self._open("GET", path, query=query, timeout=STREAM_TIMEOUT_SECONDS)
        opened()
        try:
            rest = b""
            # Not `readline`: http.client takes a chunked answer that breaks off for one that has ended there.
            while data := response.read1(READ_BYTES):
                *lines, rest = (rest + data).split(b"\n")
                yield from (json.loads(line) for line in lines if line.strip())
            if rest.strip():
                yield json.loads(rest)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerGone(
                f"The connection to {self.url} broke.",
                next_step="Look whether the server runs: `devaipod status`.",
            ) from error
        finally:
            connection.close()

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        connection, response = self._open(method, path, query=query, body=body, headers=headers)
        try:
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        finally:
            connection.close()
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise self._stranger() from None

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 0,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        connection = _connection(parts.scheme, parts.netloc, timeout or self._seconds)
        asked = {k: v for k, v in (query or {}).items() if v not in (None, "", False)}
        target = parts.path.rstrip("/") + API + path
        if asked:
            target += "?" + urlencode({k: "true" if v is True else v for k, v in asked.items()})
        sent = {"Authorization": f"Bearer {self.bearer}", "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        try:
            connection.request(method, target, body=data, headers={**sent, **(headers or {})})
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._gone(error) from error
        if 300 <= response.status < 400:
            connection.close()
            where = response.headers.get("Location", "")
            raise CliError(
                f"The server at {self.url} sends elsewhere ({where[:200]!r}).",
                next_step="Set DEVAIPOD_URL to that server's address.",
            )
        if response.status >= 400:
            try:
                raise _refusal(response)
            finally:
                connection.close()
        return connection, response

    def _gone(self, error: Exception) -> ServerGone:
        words = getattr(error, "strerror", "") or error.__class__.__name__
        gone = ServerGone(
            f"The server at {self.url} does not answer ({words}).",
            next_step=f"Start it with {home.set_up()}."
            if not os.environ.get("DEVAIPOD_URL")
            else "Correct DEVAIPOD_URL, or start that server (`devaipod setup` or `devaipod serve` on its host).",
        )
        gone.refused = isinstance(error, ConnectionRefusedError)
        return gone

    def _stranger(self) -> CliError:
        return CliError(
            f"What answers at {self.url} is no devaipod server.", next_step="Correct DEVAIPOD_URL."
        )


def segment(word: str) -> str:
    """A word as one segment of a path."""
    return quote(word, safe="")


def _connection(scheme: str, netloc: str, timeout: float) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(
            netloc, timeout=timeout, context=ssl.create_default_context()
        )
    if scheme == "http":
        return http.client.HTTPConnection(netloc, timeout=timeout)
    raise CliError(
        "The server's address must begin with http:// or https://.",
        next_step="Correct DEVAIPOD_URL.",
    )


def _pairs(url: str) -> list[tuple[str, str]]:
    from urllib.parse import parse_qsl

    return parse_qsl(urlsplit(url).query)


def _refusal(response: http.client.HTTPResponse) -> Refused:
    text = response.read(1 << 20)
    try:
        problem = json.loads(text)
        detail, next_step = str(problem["detail"]), str(problem.get("next_step", ""))
        code = str(problem.get("type", "")).rsplit(":", 1)[-1]
    except (ValueError, KeyError, TypeError):
        detail, next_step, code = f"The server answered {response.status}.", "", ""
    default = NEXT_STEPS.get(
        response.status, "Look again; `devaipod status` says how the server is."
    )
    return Refused(detail, next_step=next_step or default, code=code, http_status=response.status)
