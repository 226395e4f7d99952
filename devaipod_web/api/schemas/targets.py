"""Schemas of targets: where pods run."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, doc, optional
from devaipod_web.api.schemas.services import Health
from devaipod_web.targets.choice import Place
from devaipod_web.targets.queries import Shown

Mode = Literal["direct", "relay"]
#: Bytes of a kubeconfig, with room for what its JSON form needs more.
MAX_KUBECONFIG = 131_072


class TargetOut(Schema):
    """A target, without its credential."""

    key: str = doc("The target's public key.", "k7m2zq4xab")
    name: str = doc("Its name.", "cluster-a")
    kind: Literal["podman", "kubernetes"] = doc("What makes its pods.", "kubernetes")
    namespace: str = doc("Of a cluster: where its pods are made.", "devaipod-agents")
    server: str = doc("Of a cluster: its API server; empty with the service account.", "")
    context: str = doc("Of a cluster: the context of its kubeconfig, or empty.", "")
    has_kubeconfig: bool = doc("Whether a kubeconfig is set. It is never shown.", True)
    gateway_mode: Mode = doc(
        "How its pods reach the gateway: `direct` at its address, or by a `relay` that the server keeps open.",
        "direct",
    )
    gateway_address: str = doc(
        "The gateway as its pods reach it; empty: DEVAIPOD_GATEWAY_ADDRESS.",
        "http://10.0.0.7:8001",
    )
    enabled: bool = doc("Whether it takes new runs.", True)
    max_runs: int | None = doc("How many runs it takes at once at most, as was set; or null.", 40)
    runs: int = doc("Runs that have a place there now.", 3)
    most_runs: int | None = doc("How many it takes now; null: no bound is known.", 40)
    closed: str = doc("Why it takes no run now, or empty.", "")
    health: Health = doc("How it was when it was last looked at.", "ok")
    error: str = doc("What was wrong then, or empty.", "")
    next_step: str = doc("What to do about it, or empty.", "")
    version: str = doc("Its version, or empty.", "v1.31.2")
    capacity: int | None = doc("How many pods it says it takes at once, or null.", None)
    policies_enforced: bool | None = doc(
        "Whether a pod is held to the network that it may reach; null: not known.", True
    )
    relay_connected: bool = doc(
        "Of mode `relay`: whether the forward to its relay is open; no run starts there while it is not.",
        False,
    )
    relay_address: str = doc("Where its relay was seen last, or empty.", "")
    relay_says: str = doc("How the forward to its relay is, in a sentence, or empty.", "")
    relay_next_step: str = doc("What to do about that, or empty.", "")
    checked_at: datetime | None = doc(
        "When it was last looked at, or null.", "2026-11-24T20:14:03.512Z"
    )
    created_at: datetime = doc("When it was added, RFC 3339.", "2026-11-01T09:30:00Z")

    @staticmethod
    def of(row: Shown) -> TargetOut:
        """A target as it is answered."""
        target, room = row.target, row.room
        return TargetOut(
            **{
                name: getattr(target, name)
                for name in TargetOut.model_fields
                if hasattr(target, name) and name not in ("runs", "closed")
            },
            has_kubeconfig=bool(target.kubeconfig),
            runs=room.taken,
            most_runs=room.most,
            closed=room.closed,
        )


class TargetIn(Body):
    """A new cluster."""

    name: str = doc("Its name: lower-case letters, digits and hyphens.", "cluster-a", max_length=40)
    namespace: str = doc(
        "Where its pods are made; empty: the context's.", "devaipod-agents", "", max_length=63
    )
    kubeconfig: str = doc(
        "A kubeconfig with everything in it and no program to execute. Encrypted at rest, never shown. Empty: the service account "
        "of the pod that the server runs in.",
        "apiVersion: v1\nkind: Config\n…",
        "",
        max_length=MAX_KUBECONFIG,
    )
    context: str = doc("One of its contexts; empty: the current one.", "", "", max_length=200)
    gateway_mode: Mode = doc("How its pods reach the gateway.", "direct", "direct")
    gateway_address: str = doc(
        "The gateway as its pods reach it; empty: DEVAIPOD_GATEWAY_ADDRESS.",
        "http://10.0.0.7:8001",
        "",
        max_length=300,
    )
    enabled: bool = doc("Whether it takes new runs.", True, True)
    max_runs: int | None = optional("Runs at once at most; null: as many as it takes.", 40)


class TargetChanges(Body):
    """What is to change of a target; fields that are not named stay. Of podman only `enabled` and `max_runs` can change."""

    name: str | None = optional("A new name.", "cluster-b", max_length=40)
    namespace: str | None = optional("Another namespace.", "devaipod-agents", max_length=63)
    kubeconfig: str | None = optional(
        "A new kubeconfig.", "apiVersion: v1\n…", max_length=MAX_KUBECONFIG
    )
    context: str | None = optional("One of the new kubeconfig's contexts.", "", max_length=200)
    gateway_mode: Mode | None = optional("Another way to the gateway.", "relay")
    gateway_address: str | None = optional("Another address.", "", max_length=300)
    enabled: bool | None = optional("Whether it takes new runs.", False)
    max_runs: int | None = optional("Runs at once at most; null: as many as it takes.", 40)


class TargetTestedOut(Schema):
    """What a target said to a test."""

    ok: bool = doc("Whether it answered.", True)
    message: str = doc("What it said, in a sentence.", "It answers: v1.31.2.")
    next_step: str = doc("What to do, or empty.", "")
    milliseconds: int = doc("How long it took.", 84)
    version: str = doc("Its version, or empty.", "v1.31.2")
    capacity: int | None = doc("How many pods it says it takes at once, or null.", None)
    policies_enforced: bool | None = doc(
        "Whether it holds pods to their network; null: not known.", True
    )


class QueuePlaceOut(Schema):
    """Where a run stands in the queue of one target."""

    target: str = doc("The target's name.", "cluster-a")
    place: int = doc("Its place there, from 1.", 2)
    taken: int = doc("Runs that have a place there.", 40)
    starting: int = doc("Those of them that are not at work yet; ten at most start at once.", 2)
    most: int | None = doc("How many it takes; null: no bound is known.", 40)
    closed: str = doc("Why it takes none now, or empty.", "")

    @staticmethod
    def of(place: Place) -> QueuePlaceOut:
        """A place as it is answered."""
        room = place.room
        return QueuePlaceOut(
            target=room.name,
            place=place.place,
            taken=room.taken,
            starting=room.starting,
            most=room.most,
            closed=room.closed,
        )
