"""From the POST to the agent's first process as the host sees it, against a shell script that takes the same steps in the same order.

The script uses podman's own command: volumes, pod, sidecar, the same clone by the same sidecar over the same gateway,
agent. Its run and tokens are rows that this benchmark makes, so that the gateway serves its sidecar like any other; a lease that this
benchmark holds keeps the supervisor away from it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

from tests.agents.image import scripted_image
from tests.e2e.installation import Installation

ROUNDS = 20
BOUND = 1.5

SCRIPT = r"""
set -eu
ws="$NAME-workspace"; hm="$NAME-home"; st="$NAME-state"; io="$NAME-stdio"
bounded() {
    truncate -s "$2" "$IMAGES/$1.img"
    mkfs.ext4 -q -F -O ^has_journal -m 0 -N "$3" -E lazy_itable_init=1,nodiscard,root_owner=1000:1000 "$IMAGES/$1.img"
    debugfs -w -R 'rmdir lost+found' "$IMAGES/$1.img" 2>/dev/null
    podman volume create --opt type=ext4 --opt device="$IMAGES/$1.img" --opt o=loop,nosuid,nodev "$1" >/dev/null
}
bounded "$ws" 4G 400000
bounded "$hm" 2G 200000
bounded "$st" 2G 200000
podman volume create --opt o=uid=1000,gid=1000 "$io" >/dev/null
podman pod create --name "$NAME" --share net --network none --infra-image "$SIDECAR" --infra-command "catatonit -P" >/dev/null
safe="--pod $NAME --user 1000:1000 --cap-drop all --security-opt no-new-privileges --read-only --log-driver k8s-file"
podman create $safe --name "$NAME-sidecar" --memory 512m --pids-limit 128 \
    -v "$ws:/workspaces/bench" -v "$io:/run/devaipod-stdio" -v "$st:/var/lib/devaipod" \
    -v "$TOKENS:/run/devaipod-token:ro" -v "$SOCKETS:/run/devaipod:ro" --tmpfs /tmp:size=64m \
    --entrypoint '["python3","-m","pods.sidecar"]' "$SIDECAR" >/dev/null
podman create $safe --name "$NAME-agent" --memory 3g --pids-limit 512 --cpus 2 \
    -v "$ws:/workspaces/bench" -v "$io:/run/devaipod-stdio:ro" -v "$hm:/home/agent" --tmpfs /tmp:size=512m \
    --entrypoint '["sh","-c","exec opencode acp </run/devaipod-stdio/in >/run/devaipod-stdio/out"]' "$AGENT" >/dev/null
place=$(podman volume inspect "$ws" --format '{{.Mountpoint}}')
pipes=$(podman volume inspect "$io" --format '{{.Mountpoint}}')
handed() {
    podman init "$1" >/dev/null; shift
    for volume; do chown 1000:1000 "$(podman volume inspect "$volume" --format '{{.Mountpoint}}')"; done
}
handed "$NAME-sidecar" "$ws" "$st"
podman start "$NAME-sidecar" >/dev/null
until grep -q autoSetupRemote "$place/.git/config" 2>/dev/null && test -p "$pipes/out"; do sleep 0.02; done
handed "$NAME-agent" "$hm"
podman start "$NAME-agent" >/dev/null
"""

PREPARE = """
import django, os, json, secrets
os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'
django.setup()
from datetime import timedelta
from django.utils import timezone
from devaipod_web import home
from devaipod_web.forges import staging
from devaipod_web.gateway import sockets, tokens
from devaipod_web.projects.models import Project
from devaipod_web.accounts.models import User
from devaipod_web.runs.models import Run, RunPod
project = Project.objects.get(slug=%r)
now = timezone.now()
run = Run.objects.create(project=project, owner=User.objects.first(), title='script', task='script', agent='opencode',
    wall_seconds=7200, state='starting', queued_at=now, attempts=1, lease_owner='bench', lease_until=now + timedelta(hours=1))
Run.objects.filter(pk=run.pk).update(branch=f'agent/{run.key}/work', base_commit=staging.resolve(project, 'main'))
run.refresh_from_db()
staging.ensure_run_repository(project, run)
(control, control_digest), (data, data_digest) = tokens.mint(), tokens.mint()
pod = RunPod.objects.create(run=run, attempt=1, name=f'script-{run.key}', backend='podman', image='script',
    control_digest=control_digest, data_digest=data_digest)
folder = home.pod_token_dir(pod.name); folder.mkdir(parents=True)
for name, token in (('control', control), ('data', data)):
    (folder / name).write_text(token); (folder / name).chmod(0o444)
folder.chmod(0o755)
print(json.dumps({'run': run.key, 'name': pod.name, 'tokens': str(folder), 'sockets': str(sockets.link_pod(pod.key)), 'pod': pod.key}))
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


def measure(place: Installation, project: str) -> bool:
    """Print the medians and their ratio; whether it is within the bound."""
    ours, script = [], []
    for number in range(ROUNDS + 1):
        mine, theirs = _ours(place, project), _script(place, project)
        if number:  # the first of each warms the caches
            ours.append(mine)
            script.append(theirs)
    ratio = statistics.median(ours) / statistics.median(script)
    print(
        f"click to agent    ours {statistics.median(ours):.2f} s (from {min(ours):.2f} to {max(ours):.2f}), "
        f"script {statistics.median(script):.2f} s (from {min(script):.2f} to {max(script):.2f}), "
        f"median of {ROUNDS}: ratio {ratio:.2f} (at most {BOUND})",
        flush=True,
    )
    return ratio <= BOUND


def born(place: Installation, container: str) -> float:
    """When a container's first process was started, as the kernel says (10 ms), in seconds of the wall clock."""
    pid = int(place.podman("inspect", container, "--format", "{{.State.Pid}}"))
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def _ours(place: Installation, project: str) -> float:
    began = time.time()
    key = place.api("POST", "/runs", {"project": project, "task": "sleep 3"})["key"]
    place.wait_for_state(key, "running", "succeeded", seconds=60)
    pod = place.run(key)["pods"][-1]
    seconds = born(place, f"{pod}-agent") - began
    place.wait_for_state(key, "succeeded", seconds=60)
    place.wait(lambda: not _pod_there(place, pod), 60, f"pod {pod} to go")
    return seconds


def _pod_there(place: Installation, pod: str) -> bool:
    return bool(place.podman("pod", "ps", "-q", "--filter", f"name={pod}"))


def _script(place: Installation, project: str) -> float:
    facts = json.loads(place.python(PREPARE % project).splitlines()[-1])
    images = place.home / "script-images"
    images.mkdir(exist_ok=True)
    name = facts["name"]
    environment = {
        **place.environment,
        "CONTAINERS_CONF": str(place.home / "podman" / "containers.conf"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        "NAME": name,
        "IMAGES": str(images),
        "TOKENS": facts["tokens"],
        "SOCKETS": facts["sockets"],
        "SIDECAR": "localhost/devaipod-sidecar:dev",
        "AGENT": scripted_image(),
    }
    began = time.time()
    try:
        subprocess.run(["sh", "-c", SCRIPT], env=environment, check=True, timeout=120)
        return born(place, f"{name}-agent") - began
    finally:
        place.podman("pod", "rm", "-f", "-t", "1", name)
        for kind in ("workspace", "home", "state", "stdio"):
            place.podman("volume", "rm", "-f", f"{name}-{kind}")
        for path in images.iterdir():
            path.unlink()
        place.python(FINISH % (name, name))
