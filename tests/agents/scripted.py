#!/usr/bin/env python3
"""An ACP agent for tests that does what the prompt says, line by line; speaks the real protocol (version 1) on stdio.

Directives, one a line of the prompt; anything else is echoed as a message:

    log COUNT PER_SECOND     lines `line <n> <unix time in ns>` to standard error, at random intervals with that mean rate
    flood MEGABYTES          as many lines as fast as standard error takes them, the last one `flood <number of lines>`
    longline MEGABYTES       one line of that length, then `longline ends`
    noise MEGABYTES          random bytes, terminal sequences and invalid UTF-8, then `noise ends`
    ask TITLE                a permission request; the answer is said as a message
    write PATH TEXT          a file in the workspace
    commit MESSAGE           git add and commit
    push                     git push to the remote
    sleep SECONDS            nothing, for that long
    die CODE                 exit at once, in the middle of the turn
    eat MEGABYTES            allocate and touch memory
    fill MEGABYTES           a file of that size in the workspace
    hoard MEGABYTES          the same; an agent that goes on when there is no room for it
    refuse WORDS             the prompt is answered with an error of these words
    junk                     a line on standard output that is no JSON
    call                     one chat completion through OPENAI_BASE_URL; what came back is said
    need                     the same, and the prompt is answered with an error when the model refuses (as real agents do)

The variable SCRIPTED steers what comes before any prompt: `refuse` answers `initialize` with an error, `version` with protocol
version 99, `no-session` answers `session/new` with an error.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Agent:
    """One session over standard input and output."""

    def __init__(self) -> None:
        self.cwd = Path.cwd()
        self.session = ""
        self.next_id = 1000
        self.cancelled = False
        self.refusal = ""
        self.manner = os.environ.get("SCRIPTED", "")

    def send(self, message: dict[str, Any]) -> None:
        """One JSON-RPC message on one line."""
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()

    def update(self, update: dict[str, Any]) -> None:
        """A session/update notification."""
        self.send(
            {"method": "session/update", "params": {"sessionId": self.session, "update": update}}
        )

    def say(self, text: str) -> None:
        """A piece of the agent's message."""
        self.update(
            {
                "sessionUpdate": "agent_message_chunk",
                "content": {"type": "text", "text": text + "\n"},
            }
        )

    def serve(self) -> None:
        """Answer requests until standard input ends."""
        for line in sys.stdin:
            message = json.loads(line)
            method, params = message.get("method"), message.get("params") or {}
            if self.refuses(method):
                error = {"code": -32000, "message": f"{method} is refused, as told"}
                self.send({"id": message["id"], "error": error})
                continue
            if method == "initialize":
                result: Any = {
                    "protocolVersion": 99 if self.manner == "version" else 1,
                    "agentCapabilities": {"loadSession": True},
                    "agentInfo": {"name": "scripted", "version": "1"},
                    "authMethods": [],
                }
            elif method in ("session/new", "session/load"):
                self.cwd = Path(params["cwd"])
                self.session = params.get("sessionId") or f"s-{time.time_ns()}"
                result = {"sessionId": self.session} if method == "session/new" else {}
            elif method == "session/prompt":
                self.cancelled = False
                self.refusal = ""
                for part in params["prompt"]:
                    self.play(part.get("text", ""))
                if self.refusal:
                    error = {"code": -32603, "message": self.refusal}
                    self.send({"id": message["id"], "error": error})
                    continue
                result = {"stopReason": "cancelled" if self.cancelled else "end_turn"}
            elif method == "session/cancel":
                self.cancelled = True
                continue
            elif "id" in message and method:
                self.send(
                    {"id": message["id"], "error": {"code": -32601, "message": "Method not found"}}
                )
                continue
            else:
                continue
            self.send({"id": message["id"], "result": result})

    def refuses(self, method: str | None) -> bool:
        """Whether this request is answered with an error before any prompt."""
        return (self.manner, method) in {("refuse", "initialize"), ("no-session", "session/new")}

    def play(self, text: str) -> None:
        """Do what each line says."""
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            act = getattr(self, f"do_{word}", None)
            if act is None:
                self.say(line)
            else:
                act(rest)

    def do_log(self, rest: str) -> None:
        """Lines on standard error."""
        count, rate = rest.split()
        for number in range(int(count)):
            sys.stderr.write(f"line {number} {time.time_ns()}\n")
            sys.stderr.flush()
            time.sleep(random.expovariate(float(rate)))
        self.say(f"logged {count}")

    def do_flood(self, megabytes: str) -> None:
        """Lines as a busy program writes them: numbered, a tenth of each random."""
        noise = [os.urandom(6).hex() for _ in range(997)]
        written = number = 0
        while written < float(megabytes) * 1e6:
            lines = "".join(
                f"{n} 2026-01-02T03:04:05Z INFO worker.{n % 7} handled request id={noise[n % 997]} "
                f"path=/api/v1/items/{n} status=200 in {n % 89} ms\n"
                for n in range(number, number + 1000)
            )
            sys.stderr.write(lines)
            number, written = number + 1000, written + len(lines)
        sys.stderr.write(f"flood {number}\n")
        sys.stderr.flush()
        self.say(f"flooded {number} lines")

    def do_longline(self, megabytes: str) -> None:
        """One line without an end for long."""
        for _ in range(int(megabytes)):
            sys.stderr.write("0123456789abcdef" * 62_500)
        sys.stderr.write("\nlongline ends\n")
        sys.stderr.flush()
        self.say("wrote a long line")

    def do_noise(self, megabytes: str) -> None:
        """What no terminal and no browser should be given."""
        sys.stderr.flush()
        for _ in range(int(float(megabytes) * 10)):
            os.write(2, os.urandom(90_000) + b"\x1b[31m\xff\xfe</script>\x1b]52;c;eA==\x07" * 200)
        os.write(2, b"\nnoise ends\n")
        self.say("made noise")

    def do_ask(self, title: str) -> None:
        """A permission request."""
        self.next_id += 1
        call = {
            "toolCallId": f"call-{self.next_id}",
            "title": title,
            "kind": "execute",
            "status": "pending",
        }
        self.update({"sessionUpdate": "tool_call", **call})
        options = [
            {"optionId": "once", "name": "Allow once", "kind": "allow_once"},
            {"optionId": "always", "name": "Allow always", "kind": "allow_always"},
            {"optionId": "no", "name": "Refuse", "kind": "reject_once"},
        ]
        self.send(
            {
                "id": self.next_id,
                "method": "session/request_permission",
                "params": {"sessionId": self.session, "toolCall": call, "options": options},
            }
        )
        for line in sys.stdin:
            answer = json.loads(line)
            if answer.get("id") == self.next_id and "method" not in answer:
                outcome = answer.get("result", {}).get("outcome", {})
                self.say(f"answer: {outcome.get('optionId') or outcome.get('outcome')}")
                return
            if answer.get("method") == "session/cancel":
                self.cancelled = True

    def do_write(self, rest: str) -> None:
        """A file in the workspace, shown as a tool call with a diff."""
        name, _, text = rest.partition(" ")
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        self.update(
            {
                "sessionUpdate": "tool_call",
                "toolCallId": f"write-{time.time_ns()}",
                "title": name,
                "kind": "edit",
                "status": "completed",
                "content": [
                    {"type": "diff", "path": str(path), "oldText": None, "newText": text + "\n"}
                ],
            }
        )

    def do_commit(self, message: str) -> None:
        """Everything in the workspace as one commit."""
        self.git("add", "-A")
        self.git("commit", "-qm", message or "Change")

    def do_push(self, _: str) -> None:
        """The present branch to the remote."""
        self.git("push", "-q", "origin", "HEAD")

    def git(self, *words: str) -> None:
        """Run git in the workspace and say what it printed when it failed."""
        done = subprocess.run(["git", *words], cwd=self.cwd, capture_output=True, text=True)
        if done.returncode:
            self.say(f"git {words[0]} failed: {done.stderr[-300:]}")

    def do_sleep(self, seconds: str) -> None:
        """Nothing."""
        time.sleep(float(seconds))

    def do_die(self, code: str) -> None:
        """The end, without a word to the client."""
        sys.stderr.write("dying as told\n")
        sys.stderr.flush()
        os._exit(int(code or 1))

    def do_eat(self, megabytes: str) -> None:
        """Memory that is really used."""
        self.eaten = bytearray(os.urandom(1024)) * (int(megabytes) * 1024)

    def do_fill(self, megabytes: str) -> None:
        """A large file; without room for it this ends the agent, as it would many a program."""
        with (self.cwd / "ballast").open("wb") as file:
            for _ in range(int(megabytes)):
                file.write(os.urandom(1024) * 1024)
                file.flush()

    def do_hoard(self, megabytes: str) -> None:
        """A large file, or as much of it as there is room for."""
        try:
            self.do_fill(megabytes)
        except OSError as error:
            self.say(f"no more room: {error.strerror}")

    def do_refuse(self, words: str) -> None:
        """The prompt is answered with an error."""
        self.refusal = words or "refused, as told"

    def do_need(self, _: str) -> None:
        """A model call without which the prompt fails."""
        status = self.do_call("")
        if status != 200:
            self.refusal = f"the model answered {status}"

    def do_junk(self, _: str) -> None:
        """Something that is no JSON-RPC."""
        sys.stdout.write("this is not JSON\n")
        sys.stdout.flush()

    def do_call(self, _: str) -> int:
        """One request to the model; returns the status, 0 for no answer."""
        base = os.environ.get("OPENAI_BASE_URL") or "http://127.0.0.1:8400/llm/v1"
        body = {
            "model": os.environ.get("OPENAI_MODEL", "any"),
            "messages": [{"role": "user", "content": "hello"}],
        }
        request = urllib.request.Request(
            f"{base}/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                status = int(answer.status)
                text = answer.read(4000).decode(errors="replace")
        except urllib.error.HTTPError as error:
            status = error.code
            text = f"{error.code} {error.read(1000).decode(errors='replace')}"
        except OSError as error:
            status = 0
            text = f"no answer: {error}"
        self.say(f"model: {text[:1500]}")
        return status


if __name__ == "__main__":
    Agent().serve()
