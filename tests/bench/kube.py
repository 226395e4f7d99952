"""On a real cluster: click to agent against `kubectl apply` of the same pod, API calls in a run's life, and requests while runs are idle.

    python -m tests.bench.kube [click] [life] [idle:100]

Every request of the installation is counted between it and the API server, by something that knows nothing of its code: a TLS
connection in, one out, and the request lines that pass. KUBECONFIG and DEVAIPOD_TEST_KUBE_LOAD as for `make test-kube`;
DEVAIPOD_TEST_KUBE_HOST is this host as pods reach it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from devaipod_web.host import images
from tests.agents.image import scripted_image
from tests.e2e.installation import Installation, installed, make_upstream
from tests.pods import cluster

ROUNDS = 6
BOUND = 1.3
IDLE_SECONDS = 120
FEW = 5
#: Requests a minute that a hundred idle runs may cost more than a few: the beats fall as they fall.
BOUND_MORE = 3.0
INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")
NAMESPACE = f"devaipod-bench-{os.getpid()}"
_REQUEST = re.compile(rb"(?:^|\n)(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r\n")

PREPARE = """
import django, os, json
os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'
django.setup()
from datetime import timedelta
from django.utils import timezone
from devaipod_web.forges import staging
from devaipod_web.gateway import tokens
from devaipod_web.projects.models import Project
from devaipod_web.accounts.models import User
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.targets.models import Target
project, target = Project.objects.get(slug=%r), Target.objects.get(name='bench')
now = timezone.now()
run = Run.objects.create(project=project, owner=User.objects.first(), title='script', task='script', agent='opencode', target=target,
    wall_seconds=7200, state='starting', queued_at=now, attempts=1, lease_owner='bench', lease_until=now + timedelta(hours=1))
Run.objects.filter(pk=run.pk).update(branch=f'agent/{run.key}/work', base_commit=staging.resolve(project, 'main'))
run.refresh_from_db()
staging.ensure_run_repository(project, run)
(control, control_digest), (data, data_digest) = tokens.mint(), tokens.mint()
pod = RunPod.objects.create(run=run, attempt=1, name=f'devaipod-bench-{run.key}-1', backend='kubernetes', image='script', target=target,
    control_digest=control_digest, data_digest=data_digest)
print(json.dumps({'run': run.key, 'name': pod.name, 'control': control, 'data': data}))
"""

FINISH = """
import django, os
os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'
django.setup()
from django.utils import timezone
from devaipod_web.runs.models import Run, RunPod
now = timezone.now()
RunPod.objects.filter(name=%r).update(ended_at=now, removed_at=now)
Run.objects.filter(pods__name=%r).update(state='stopped', ended_at=now, lease_owner='', lease_until=None)
"""


class Meter:
    """Stands between an installation and the API server and writes down each request: (when, method, path)."""

    def __init__(self, address: tuple[str, int], folder: Path) -> None:
        self.seen: list[tuple[float, str, str]] = []
        self.port = 0
        self._address = address
        self._inside = _certificate(folder)
        self._outside = ssl._create_unverified_context()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0, ssl=self._inside)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._address, ssl=self._outside)
        await asyncio.gather(self._copy(reader, back, True), self._copy(there, writer, False))

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_asking: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if is_asking:
                    for method, path in _REQUEST.findall(data):
                        self.seen.append((time.monotonic(), method.decode(), path.decode()))
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def since(self, moment: float) -> list[tuple[str, str]]:
        """(method, path) of each request since a moment (monotonic seconds)."""
        return [(method, path) for at, method, path in self.seen if at >= moment]


def _certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "meter.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Bench:
    """One installation on one namespace of the cluster."""

    def __init__(self, place: Installation, meter: Meter, project: str) -> None:
        self.place, self.meter, self.project = place, meter, project

    # --- click to agent -----------------------------------------------------------------------------------

    def click(self) -> bool:
        """Print the medians and their ratio; whether it is within the bound."""
        ours, applied = [], []
        for number in range(ROUNDS + 1):
            mine, document = self._ours()
            theirs = self._applied(document)
            if number:  # the first of each warms the caches
                ours.append(mine)
                applied.append(theirs)
        ratio = statistics.median(ours) / statistics.median(applied)
        print(
            f"click to agent    ours {statistics.median(ours):.2f} s (from {min(ours):.2f} to {max(ours):.2f}), "
            f"kubectl apply {statistics.median(applied):.2f} s (from {min(applied):.2f} to {max(applied):.2f}), "
            f"median of {ROUNDS}: ratio {ratio:.2f} (at most {BOUND})",
            flush=True,
        )
        return ratio <= BOUND

    def _ours(self) -> tuple[float, dict[str, Any]]:
        began = time.time()
        key = self._launch("sleep 3")
        name = self._pod_of(key)
        seconds = _agent_began(name) - began
        document = cluster.api("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        self._until_gone(key, name)
        return seconds, document

    def _applied(self, ours: dict[str, Any]) -> float:
        facts = json.loads(self.place.python(PREPARE % self.project).splitlines()[-1])
        name = facts["name"]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": _same(ours, facts)})
        began = time.time()
        try:
            subprocess.run(
                ["kubectl", "apply", "--validate=false", "-f", "-"],
                input=text,
                text=True,
                check=True,
                capture_output=True,
                timeout=60,
            )
            return _agent_began(name) - began
        finally:
            for kind in ("pods", "secrets"):
                path = f"/api/v1/namespaces/{NAMESPACE}/{kind}/{name}"
                cluster.api("DELETE", path, params={"gracePeriodSeconds": 0})
            self.place.python(FINISH % (name, name))

    # --- what a run costs the API server --------------------------------------------------------------------

    def life(self) -> bool:
        """Print how many calls a run makes in its life; whether a longer one makes no more."""
        counts = []
        for seconds in (2, 45):
            began = time.monotonic()
            key = self._launch(f"log 20 20\nsleep {seconds}\nwrite a.txt x\ncommit Add a file")
            name = self._pod_of(key)
            self._until_gone(key, name)
            asked = self.meter.since(began)
            counts.append(
                Counter(_kind(*one) for one in asked if name in one[1] or one[0] != "GET")
            )
        short, long = (sum(one.values()) for one in counts)
        said = ", ".join(f"{many} {kind}" for kind, many in sorted(counts[1].items()))
        print(
            f"calls of a run    {short} in a short life, {long} in a long one (the same, within 2): {said}",
            flush=True,
        )
        return abs(long - short) <= 2

    def idle(self, many: int) -> bool:
        """Print the requests a minute with few idle runs and with many; whether the many cost no more.

        A kubelet needs an inotify instance for each log that is followed, and Linux gives a user 128.
        """
        before = int(INSTANCES.read_text())
        needed = before + 2 * many
        if before < 1024:
            print(
                f"fs.inotify.max_user_instances: {needed} instead of {before} meanwhile", flush=True
            )
            INSTANCES.write_text(str(needed))
        try:
            return self._idle(many)
        finally:
            INSTANCES.write_text(str(before))

    def _idle(self, many: int) -> bool:
        rates = []
        keys: list[str] = []
        for wanted in (FEW, many):
            while len(keys) < wanted:
                keys.append(self._launch("sleep 36000"))
            self.place.wait(
                lambda: self._at_work(keys), 60 + 20 * many, f"{wanted} runs to be at work"
            )
            time.sleep(20)
            began = time.monotonic()
            time.sleep(IDLE_SECONDS)
            asked = self.meter.since(began)
            rates.append(len(asked) * 60 / (time.monotonic() - began))
        said = ", ".join(
            f"{n} {kind}" for kind, n in Counter(_kind(*one) for one in asked).most_common(6)
        )
        print(
            f"requests idle     {rates[0]:.1f} a minute with {FEW} runs, {rates[1]:.1f} with {many} "
            f"(at most {BOUND_MORE:.0f} more): {said or 'none'} in {IDLE_SECONDS} s",
            flush=True,
        )
        return rates[1] <= rates[0] + BOUND_MORE

    # --- parts ------------------------------------------------------------------------------------------------

    def _launch(self, task: str) -> str:
        body = {"project": self.project, "task": task, "target": "bench"}
        return str(self.place.api("POST", "/runs", body)["key"])

    def _pod_of(self, key: str) -> str:
        self.place.wait_for_state(key, "running", "succeeded", seconds=120)
        return str(self.place.run(key)["pods"][-1])

    def _until_gone(self, key: str, name: str) -> None:
        self.place.wait_for_state(key, "succeeded", seconds=180)
        self.place.wait(lambda: not _is_there(name), 90, f"pod {name} to go")
        time.sleep(1)

    def _at_work(self, keys: list[str]) -> bool:
        time.sleep(2)
        states = Counter(self.place.run(key)["state"] for key in keys)
        failed = {
            state for state in states if state not in ("queued", "preparing", "starting", "running")
        }
        assert not failed, states
        return states["running"] == len(keys)


def _same(ours: dict[str, Any], facts: dict[str, str]) -> list[dict[str, Any]]:
    """Secret and pod as ours were, under another name and with other tokens."""
    name = facts["name"]
    spec = copy.deepcopy(ours["spec"])
    for key in ("nodeName", "serviceAccount", "serviceAccountName"):
        spec.pop(key, None)
    for volume in spec["volumes"]:
        if "secret" in volume:
            volume["secret"]["secretName"] = name
    labels = {**ours["metadata"]["labels"], "io.devaipod.run": facts["run"]}
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta,
        "stringData": {"control": facts["control"], "data": facts["data"]},
    }
    return [secret, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}]


def _agent_began(name: str) -> float:
    """When the agent's first process was started (wall clock): as the kernel says where the node is this host, else when the API did."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = cluster.api("GET", f"/api/v1/namespaces/{NAMESPACE}/pods/{name}")
        for one in (found.get("status") or {}).get("containerStatuses") or ():
            if one["name"] == "agent" and (
                "running" in one["state"] or "terminated" in one["state"]
            ):
                identity = one["containerID"].rpartition("/")[2]
                return _born(identity) or time.time()
        time.sleep(0.1)
    raise AssertionError(f"the agent of {name} did not start")


def _born(container: str) -> float:
    """When a container's first process was started, in seconds of the wall clock; 0 when it is not on this host."""
    times = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if container in (folder / "cgroup").read_text():
                ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                times.append(ticks / os.sysconf("SC_CLK_TCK"))
        except OSError:
            continue
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + min(times) if times else 0.0


def _is_there(name: str) -> bool:
    found = cluster.api("GET", f"/api/v1/namespaces/{NAMESPACE}/pods")
    return any(one["metadata"]["name"] == name for one in found["items"])


def _kind(method: str, path: str) -> str:
    """What a request is of: `GET pods/log`, `watch pods`."""
    place, _, query = path.partition("?")
    parts = place.partition("/namespaces/")[2].split("/")[1:]
    what = "/".join([*parts[:1], *parts[2:]]) or place
    return f"{'watch' if 'watch=' in query else method} {what}"


def main() -> int:
    """All three figures in one run, or those that are named; exit code 1 when one misses its bound."""
    words = dict(word.partition(":")[::2] for word in sys.argv[1:])
    wanted = set(words) or {"click", "life", "idle"}
    # A run that is told to end leaves nothing on the cluster either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="devaipod-bench-"))
    text = cluster.kubeconfig()
    agent, sidecar = scripted_image(), images.references().sidecar
    cluster.load((agent, sidecar))
    meter = Meter(cluster.address_of(text), folder)
    port = cluster.port_for_pods(sidecar)
    settings = {
        "DEVAIPOD_MAX_RUNS": "200",
        "DEVAIPOD_KEEP_WARM_SECONDS": "0",
        "DEVAIPOD_SIDECAR_IMAGE": sidecar,
        "DEVAIPOD_GATEWAY_LISTEN": f"{cluster.HOST}:{port}",
        "DEVAIPOD_GATEWAY_ADDRESS": f"http://{cluster.HOST}:{port}",
    }
    good = True
    try:
        with cluster.namespace(NAMESPACE), installed(folder / "home", **settings) as place:
            metered = cluster.at_port(text, meter.port)
            place.api(
                "POST", "/targets", {"name": "bench", "namespace": NAMESPACE, "kubeconfig": metered}
            )
            project = place.api(
                "POST",
                "/projects",
                {
                    "name": "bench",
                    "upstream_url": str(make_upstream(folder / "bench")),
                    "image": agent,
                    "permission_policy": "allow",
                    "memory_bytes": 256 * 1024**2,
                    "cpus": 0.5,
                    "targets": ["bench"],
                },
            )["slug"]
            bench = Bench(place, meter, project)
            if "click" in wanted:
                good &= bench.click()
            if "life" in wanted:
                good &= bench.life()
            if "idle" in wanted:
                good &= bench.idle(int(words.get("idle") or 100))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
