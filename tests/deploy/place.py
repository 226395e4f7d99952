"""A control plane on the cluster, applied as a person would: an overlay of deploy/kubernetes, `kubectl apply -k`, `kubectl exec`."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from devaipod_web.host import images
from tests.deploy import cluster
from tests.deploy.access import AGENTS, INFRA
from tests.deploy.kubectl import DEPLOY, kubectl, program
from tests.e2e.installation import ApiError
from tests.harness import RunHandle

DEPLOYMENT = "deployment/control-plane"
#: Where upstream and production lie inside of the control plane, for runs that need no forge.
REPOSITORIES = "/srv/repositories"
READY_SECONDS = 180


class Place:
    """The installed control plane."""

    def __init__(self) -> None:
        self.port = 0
        self.token = ""
        self._service = cluster.Service("control-plane", INFRA)
        self._forward: subprocess.Popen[str] | None = None

    # --- as a person at a terminal ------------------------------------------------------------------------

    def exec(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """`kubectl exec` in the control plane; returns standard output."""
        inner = ["exec", "-n", INFRA, *(["-i"] if stdin is not None else []), DEPLOYMENT]
        return kubectl(*inner, "-c", "control-plane", "--", *words, stdin=stdin, check=check)

    def devaipod(self, *words: str) -> str:
        """The command `devaipod` in the control plane."""
        return self.exec("devaipod", *words)

    def pod(self) -> dict[str, Any]:
        """The control plane's pod as the API server has it."""
        found = json.loads(
            kubectl(
                "get",
                "pods",
                "-n",
                INFRA,
                "-l",
                "app.kubernetes.io/name=devaipod-control-plane",
                "-o",
                "json",
            )
        )["items"]
        (one,) = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        assert isinstance(one, dict)
        return one

    def wait_until_ready(self) -> None:
        """Wait for the roll-out; a failure has the pod's own story."""
        try:
            kubectl(
                "rollout",
                "status",
                DEPLOYMENT,
                "-n",
                INFRA,
                f"--timeout={READY_SECONDS}s",
                timeout=READY_SECONDS + 20,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None
        self._service.leads_to(self.pod()["status"]["podIP"])

    def leave(self) -> None:
        """Let go of what leads to it."""
        self._service.leads_to("")
        self.unforward()

    def story(self) -> str:
        """What happened in the two namespaces, for a failure's message."""
        parts = [
            kubectl("describe", "pods", "-n", INFRA, check=False)[-4000:],
            kubectl("logs", DEPLOYMENT, "-n", INFRA, "-c", "migrate", "--tail=20", check=False),
            kubectl(
                "logs", DEPLOYMENT, "-n", INFRA, "-c", "control-plane", "--tail=60", check=False
            ),
            kubectl("get", "pods,events", "-n", AGENTS, "-o", "wide", check=False)[-4000:],
        ]
        return "\n".join(parts)

    # --- over HTTP ----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the port-forward listens."""
        return f"http://localhost:{self.port}"

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the API with the token that `migrate` left. Raises ApiError with the problem document."""
        self.token = self.token or self.exec("cat", "/var/lib/devaipod/home/cli.token").strip()
        request = urllib.request.Request(
            f"{self.url}/api/devaipod{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, {"detail": error.read().decode(errors="replace")}) from None
        if "ndjson" in answer.headers.get("Content-Type", ""):
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text) if text else None

    def handle(self, key: str) -> RunHandle:
        """A run for the harness."""
        return RunHandle(self.api, key)

    def sign_in_link(self) -> str:
        """The link that a person gets by `kubectl exec`, at the address of the port-forward."""
        found = re.search(r"https?://[^/\s]+(/sign-in/\S+)", self.devaipod("sign-in-link"))
        assert found
        return f"{self.url}{found.group(1)}"

    def forward(self) -> None:
        """Have the web app at `url` by `kubectl port-forward`, anew when it was: one lasts as long as the pod that it leads to."""
        self.unforward()
        self._forward = subprocess.Popen(
            [program(), "port-forward", "-n", INFRA, "service/control-plane", ":8000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert self._forward.stdout is not None
        line = self._forward.stdout.readline()
        found = re.search(r":(\d+) ->", line)
        assert found, line
        self.port = int(found.group(1))

    def unforward(self) -> None:
        """End it; safe to repeat."""
        if self._forward is not None:
            self._forward.kill()
            self._forward.wait()
            self._forward = None


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until `condition` returns something true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


def _overlay(folder: Path, place: Path) -> None:
    """An overlay such as a person writes: images, settings, and what this cluster lacks."""
    chosen = images.references()
    control_plane, _, tag = images.control_plane().rpartition(":")
    overlay: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        # kustomize takes relative paths alone.
        "resources": [os.path.relpath(DEPLOY / "base", folder)],
        "images": [{"name": control_plane, "newTag": tag}],
        "configMapGenerator": [
            {
                "name": "settings",
                "namespace": INFRA,
                "behavior": "merge",
                "literals": [
                    f"DEVAIPOD_AGENT_IMAGE={chosen.agent}",
                    f"DEVAIPOD_SIDECAR_IMAGE={chosen.sidecar}",
                    f"DEVAIPOD_LOCAL_REPOSITORY_ROOTS={REPOSITORIES}",
                    "DEVAIPOD_KEEP_WARM_SECONDS=20",
                ],
            }
        ],
        "patches": [
            {
                "target": {"kind": "Deployment", "name": "control-plane"},
                "patch": yaml.safe_dump(_patch(folder)),
            }
        ],
    }
    if not cluster.has_default_storage():
        volume = cluster.folder_volume(place, namespace=INFRA, claim="state")
        (folder / "volume.yaml").write_text(yaml.safe_dump(volume))
        overlay["resources"].append("volume.yaml")
    if not cluster.publishes_authority():
        (folder / "ca.crt").write_text(cluster.authority())
        overlay["configMapGenerator"].append(
            {"name": "authority", "namespace": INFRA, "files": ["ca.crt"]}
        )
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))


def _patch(folder: Path) -> list[dict[str, Any]]:
    """A folder for repositories; and what other clusters' API servers put into a pod by themselves."""
    spec = "/spec/template/spec"
    container = f"{spec}/containers/0/volumeMounts/-"
    patch: list[dict[str, Any]] = [
        {
            "op": "add",
            "path": f"{spec}/volumes/-",
            "value": {"name": "repositories", "emptyDir": {}},
        },
        {
            "op": "add",
            "path": container,
            "value": {"name": "repositories", "mountPath": REPOSITORIES},
        },
    ]
    if not cluster.publishes_authority():
        sources = [
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "authority"}},
            {
                "downwardAPI": {
                    "items": [
                        {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
                    ]
                }
            },
        ]
        patch += [
            {"op": "replace", "path": f"{spec}/automountServiceAccountToken", "value": False},
            {
                "op": "add",
                "path": f"{spec}/volumes/-",
                "value": {"name": "account", "projected": {"sources": sources}},
            },
            {
                "op": "add",
                "path": container,
                "value": {"name": "account", "mountPath": cluster.ACCOUNT_DIR, "readOnly": True},
            },
        ]
    return patch


def remove() -> None:
    """Take everything of the two namespaces away, and the volume."""
    kubectl(
        "delete", "namespace", INFRA, AGENTS, "--ignore-not-found", "--timeout=120s", timeout=150
    )
    kubectl("delete", "persistentvolume", f"{INFRA}-state", "--ignore-not-found", timeout=60)


@contextmanager
def _alone() -> Iterator[None]:
    """The namespaces have fixed names: of the suite's processes one at a time has them, the others wait."""
    with (Path(tempfile.gettempdir()) / "devaipod-deploy.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def installed() -> Iterator[Place]:
    """A control plane on the cluster, ready, and gone afterwards."""
    with _alone(), _installed() as place:
        yield place


@contextmanager
def _installed() -> Iterator[Place]:
    chosen = images.references()
    for image in (images.control_plane(), chosen.sidecar, chosen.agent):
        assert images.stored(image), (
            f"{image} is not in the local store: `make test-kube` builds it"
        )
        cluster.load(image)
    folder = Path(tempfile.mkdtemp(prefix="devaipod-deploy-"))
    state = folder / "state"
    state.mkdir()
    folder.chmod(0o755)
    # A folder of the node is the one kind of volume that Kubernetes hands to nobody.
    os.chown(state, 1000, 1000)
    overlay = folder / "overlay"
    overlay.mkdir()
    remove()
    try:
        with cluster.reached_by_pods():
            _overlay(overlay, state)
            kubectl("apply", "--server-side", "-k", str(overlay))
            place = Place()
            try:
                place.wait_until_ready()
                place.forward()
                yield place
            finally:
                place.leave()
    finally:
        remove()
        shutil.rmtree(folder, ignore_errors=True)
