"""What a scripted provider says in each wire form: written by hand from the APIs' documentation, and not by the code under test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def sse(value: dict[str, Any], *, named: bool = False) -> bytes:
    head = f"event: {value['type']}\n" if named else ""
    return f"{head}data: {json.dumps(value)}\n\n".encode()


class Chat:
    name = "openai-chat"
    path = "/llm/v1/chat/completions"
    provider_path = "/v1/chat/completions"
    kind = "openai"
    model = "gpt-4o"

    def request(self, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        body = {"model": "whatever", "messages": [{"role": "user", "content": "Say hello"}]}
        return {**body, **({"stream": True} if stream else {}), **more}

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "Hello there."}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {"id": "c1", "object": "chat.completion", "choices": [choice], "usage": self.usage()}

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_tokens_details": {"cached_tokens": 400},
            "completion_tokens_details": {"reasoning_tokens": 50},
        }

    def starts(self) -> Iterator[bytes]:
        yield sse({"choices": [{"index": 0, "delta": {"role": "assistant"}}], "usage": None})

    def says(self, word: str) -> bytes:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        return sse({"object": "chat.completion.chunk", "choices": [choice], "usage": None})

    def ends(self, usage: bool = True) -> Iterator[bytes]:
        yield sse({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
        if usage:
            yield sse({"choices": [], "usage": self.usage()})
        yield b"data: [DONE]\n\n"

    def fails(self, words: str) -> bytes:
        return sse({"error": {"message": words, "type": "server_error"}})

    def error(self, status: int, words: str) -> dict[str, Any]:
        return {"error": {"message": words, "type": "invalid_request_error", "code": "its-own"}}

    def text_of(self, body: bytes) -> Any:
        return json.loads(body)["choices"][0]["message"]["content"]

    def words_of(self, error: dict[str, Any]) -> Any:
        return error["error"]["message"]

    def last_error(self, body: bytes) -> Any:
        return json.loads(events(body)[-1])["error"]["message"]


class Responses(Chat):
    name = "openai-responses"
    path = "/llm/v1/responses"
    provider_path = "/v1/responses"

    def request(self, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        body = {"model": "whatever", "input": "Say hello"}
        return {**body, **({"stream": True} if stream else {}), **more}

    def usage(self) -> dict[str, Any]:
        return {
            "input_tokens": 1000,
            "input_tokens_details": {"cached_tokens": 400},
            "output_tokens": 200,
            "output_tokens_details": {"reasoning_tokens": 50},
            "total_tokens": 1200,
        }

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        return {"id": "r1", "object": "response", "status": status, "error": None, **more}

    def whole(self) -> dict[str, Any]:
        part = {"type": "output_text", "text": "Hello there.", "annotations": []}
        item = {"type": "message", "id": "m1", "role": "assistant", "content": [part]}
        return self._response("completed", output=[item], usage=self.usage())

    def starts(self) -> Iterator[bytes]:
        response = self._response("in_progress", output=[], usage=None)
        yield sse({"type": "response.created", "response": response}, named=True)

    def says(self, word: str) -> bytes:
        return sse({"type": "response.output_text.delta", "delta": word}, named=True)

    def ends(self, usage: bool = True) -> Iterator[bytes]:
        response = self.whole() if usage else {**self.whole(), "usage": None}
        yield sse({"type": "response.completed", "response": response}, named=True)

    def fails(self, words: str) -> bytes:
        response = self._response("failed") | {"error": {"code": "server_error", "message": words}}
        return sse({"type": "response.failed", "response": response}, named=True)

    def text_of(self, body: bytes) -> Any:
        return json.loads(body)["output"][0]["content"][0]["text"]

    def last_error(self, body: bytes) -> Any:
        failed, error = map(json.loads, events(body)[-2:])
        assert failed["type"] == "response.failed"
        assert error["type"] == "error"
        assert failed["response"]["error"]["message"] == error["message"]
        return error["message"]


class Messages(Chat):
    name = "anthropic-messages"
    path = "/llm/v1/messages"
    provider_path = "/v1/messages"
    kind = "anthropic"
    model = "claude-sonnet-4-5"

    def request(self, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        body = {**super().request(stream=stream), "max_tokens": 1000}
        return {**body, **more}

    def usage(self) -> dict[str, Any]:
        return {
            "input_tokens": 500,
            "cache_read_input_tokens": 400,
            "cache_creation_input_tokens": 100,
            "output_tokens": 200,
        }

    def whole(self) -> dict[str, Any]:
        content = [{"type": "text", "text": "Hello there."}]
        return {"id": "m1", "type": "message", "content": content, "usage": self.usage()}

    def starts(self) -> Iterator[bytes]:
        message = {**self.whole(), "content": [], "usage": {**self.usage(), "output_tokens": 1}}
        yield sse({"type": "message_start", "message": message}, named=True)

    def says(self, word: str) -> bytes:
        delta = {"type": "text_delta", "text": word}
        return sse({"type": "content_block_delta", "index": 0, "delta": delta}, named=True)

    def ends(self, usage: bool = True) -> Iterator[bytes]:
        delta = {"stop_reason": "end_turn"}
        more = {"usage": {"output_tokens": 200}} if usage else {}
        yield sse({"type": "message_delta", "delta": delta, **more}, named=True)
        yield sse({"type": "message_stop"}, named=True)

    def fails(self, words: str) -> bytes:
        return sse(
            {"type": "error", "error": {"type": "overloaded_error", "message": words}}, named=True
        )

    def error(self, status: int, words: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": "not_found_error", "message": words}}

    def text_of(self, body: bytes) -> Any:
        return json.loads(body)["content"][0]["text"]

    def words_of(self, error: dict[str, Any]) -> Any:
        assert error["type"] == "error"
        assert error["error"]["type"].endswith("_error")
        return error["error"]["message"]

    def last_error(self, body: bytes) -> Any:
        assert b"event: error\n" in body
        return self.words_of(json.loads(events(body)[-1]))


class Gemini(Chat):
    name = "gemini"
    path = "/llm/v1beta/models/whatever:generateContent"
    stream_path = "/llm/v1beta/models/whatever:streamGenerateContent?alt=sse"
    provider_path = "/v1beta/models/gemini-2.5-pro:generateContent"
    kind = "gemini"
    model = "gemini-2.5-pro"

    def request(self, *, stream: bool = False, **more: Any) -> dict[str, Any]:
        return {"contents": [{"role": "user", "parts": [{"text": "Say hello"}]}], **more}

    def usage(self) -> dict[str, Any]:
        return {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 400,
            "candidatesTokenCount": 150,
            "thoughtsTokenCount": 50,
            "totalTokenCount": 1200,
        }

    def _answer(self, word: str, **more: Any) -> dict[str, Any]:
        content = {"role": "model", "parts": [{"text": word}]}
        return {"candidates": [{"content": content, "index": 0, **more}]}

    def whole(self) -> dict[str, Any]:
        answer = self._answer("Hello there.", finishReason="STOP")
        return {**answer, "usageMetadata": self.usage()}

    def starts(self) -> Iterator[bytes]:
        return iter(())

    def says(self, word: str) -> bytes:
        usage = {"promptTokenCount": 1000, "candidatesTokenCount": 1, "totalTokenCount": 1001}
        return sse({**self._answer(word), "usageMetadata": usage})

    def ends(self, usage: bool = True) -> Iterator[bytes]:
        more = {"usageMetadata": self.usage()} if usage else {}
        yield sse({**self._answer("", finishReason="STOP"), **more})

    def fails(self, words: str) -> bytes:
        return sse({"error": {"code": 503, "message": words, "status": "UNAVAILABLE"}})

    def error(self, status: int, words: str) -> dict[str, Any]:
        return {"error": {"code": status, "message": words, "status": "NOT_FOUND"}}

    def text_of(self, body: bytes) -> Any:
        return json.loads(body)["candidates"][0]["content"]["parts"][0]["text"]

    def words_of(self, error: dict[str, Any]) -> Any:
        assert error["error"]["status"].isupper()
        return error["error"]["message"]


LANGUAGES = {language.name: language for language in (Chat(), Responses(), Messages(), Gemini())}


def events(body: bytes) -> list[bytes]:
    """The data of each event of a stream."""
    return [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
