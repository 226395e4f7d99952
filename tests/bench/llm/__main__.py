"""What the gateway adds to a model request: beside LiteLLM's proxy, a bare pass-through, and no proxy at all.

All stand before the same scripted upstream, in the same run, and get the same requests in turn. Ours has its tokens, a route, budgets on
installation, project, person and run, prices and metering on, on SQLite. Prints every figure and ratio; exit 1 when a bound is missed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.bench.llm.load import CONCURRENT, Target, latencies, throughput
from tests.e2e.installation import free_port

LITELLM = "litellm[proxy]==1.108.7"
ROUNDS = 150
RATE_ROUNDS = 7
STREAMS = {"": 400, "LiteLLM": 40}
RUNS = 20
START_SECONDS = 120
CHECKOUT = Path(__file__).parents[3]
VENV = CHECKOUT / "var" / "bench" / "litellm"


def main() -> int:
    """Start all four, load them, print, and end them."""
    folder = Path(tempfile.mkdtemp(prefix="devaipod-bench-llm-"))
    try:
        with ExitStack() as stack:
            return _measure(folder, stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(folder: Path, stack: ExitStack) -> int:
    ports = [free_port() for _ in range(4)]
    upstream_port, floor_port, our_port, litellm_port = ports
    here = [sys.executable, "-m"]
    stack.enter_context(_process([*here, "tests.bench.llm.upstream", str(upstream_port)]))
    floor = [*here, "tests.bench.llm.passthrough", str(floor_port), str(upstream_port)]
    floor_process = stack.enter_context(_process(floor))
    environment = {
        "DEVAIPOD_HOME": str(folder / "home"),
        "DEVAIPOD_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
        "DEVAIPOD_RUN_BUDGET_USD": "100000",
        "DEVAIPOD_RUN_REQUESTS": "1000000",
    }
    ours = [*here, "tests.bench.llm.gateway", str(our_port), str(upstream_port), str(RUNS)]
    our_process = stack.enter_context(_process(ours, environment, out=subprocess.PIPE))
    assert our_process.stdout is not None
    tokens = json.loads(our_process.stdout.readline())
    litellm_process = stack.enter_context(_litellm(folder, litellm_port, upstream_port))
    for port in ports:
        _wait_for(port)
    path = "/v1/chat/completions"
    direct = Target("direct", f"http://127.0.0.1:{upstream_port}{path}")
    through = Target("pass-through", f"http://127.0.0.1:{floor_port}{path}")
    gateway = Target("devaipod", f"http://127.0.0.1:{our_port}/llm{path}", tokens)
    litellm = Target("LiteLLM", f"http://127.0.0.1:{litellm_port}{path}", ["sk-bench"])
    targets = [direct, through, gateway, litellm]
    asyncio.run(latencies(targets, ROUNDS))
    asyncio.run(throughput(targets, RATE_ROUNDS, STREAMS))
    memory = {
        "pass-through": _resident(floor_process.pid),
        "devaipod": _resident(our_process.pid),
        "LiteLLM": _resident(litellm_process.pid),
    }
    print(f"{'':14}{'plain':>10}{'50 chunks':>11}{f'{CONCURRENT} at once':>14}{'memory':>10}")
    for each in targets:
        resident = f"{memory[each.name] / 1e6:7.0f} MB" if each.name in memory else ""
        print(
            f"{each.name:14}{each.plain_ms:7.2f} ms{each.streamed_ms:8.2f} ms{each.rate:10.0f} /s {resident:>10}"
        )
    checks = [
        (
            "added to a plain request, of LiteLLM's",
            (gateway.plain_ms - direct.plain_ms) / (litellm.plain_ms - direct.plain_ms),
            "at most",
            0.10,
        ),
        (
            "added to a stream, of LiteLLM's",
            (gateway.streamed_ms - direct.streamed_ms) / (litellm.streamed_ms - direct.streamed_ms),
            "at most",
            0.05,
        ),
        ("streams a second, of LiteLLM's", gateway.rate / litellm.rate, "at least", 25.0),
        ("streams a second, of the pass-through's", gateway.rate / through.rate, "at least", 0.6),
        ("memory, of LiteLLM's", memory["devaipod"] / memory["LiteLLM"], "at most", 0.4),
    ]
    good = True
    for name, ratio, how, bound in checks:
        holds = ratio <= bound if how == "at most" else ratio >= bound
        good &= holds
        print(f"{'✓' if holds else '✗'} {name}: {ratio:.3f} ({how} {bound})")
    return 0 if good else 1


def _resident(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)])


@contextmanager
def _process(
    words: list[str], environment: dict[str, str] | None = None, out: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        words,
        cwd=CHECKOUT,
        env={**os.environ, **(environment or {})},
        stdout=out if out is not None else subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _litellm(folder: Path, port: int, upstream_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """LiteLLM's proxy in a virtual environment of its own, made on the first run."""
    program = VENV / "bin" / "litellm"
    if not program.exists():
        print(f"installing {LITELLM} into {VENV}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", LITELLM], check=True)
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n"
        "  - model_name: gpt-4o\n"
        "    litellm_params:\n"
        "      model: openai/gpt-4o\n"
        "      api_key: sk-x\n"
        f"      api_base: http://127.0.0.1:{upstream_port}/v1\n"
        "general_settings:\n"
        "  master_key: sk-bench\n"
        "litellm_settings:\n"
        "  telemetry: false\n"
    )
    words = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "NO_PROXY": "*",
    }
    with _process([*words, "--num_workers", "1", "--telemetry", "False"], environment) as process:
        yield process


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)  # noqa: S310 - ours
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
