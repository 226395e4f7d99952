from __future__ import annotations

import json

import pytest

from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.targets import services
from devaipod_web.targets.models import Target

GATEWAY = "http://10.0.0.7:8001"


def kubeconfig(
    *, server: str = "https://10.0.0.9:6443", user: object = None, **cluster: object
) -> str:
    """A kubeconfig with two contexts, of which `one` is the current one."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "contexts": [
                {"name": "one", "context": {"cluster": "c1", "user": "u1", "namespace": "agents"}},
                {"name": "two", "context": {"cluster": "c2", "user": "u2"}},
            ],
            "clusters": [
                {"name": "c1", "cluster": {"server": server, **cluster}},
                {"name": "c2", "cluster": {"server": "https://10.0.0.10:6443"}},
            ],
            "users": [
                {"name": "u1", "user": user or {"token": "very-secret-one"}},
                {"name": "u2", "user": {"token": "very-secret-two"}},
            ],
        }
    )


@pytest.fixture
def ada(db):
    return User.objects.create_superuser("ada")


@pytest.fixture
def podman(db):
    services.ensure_own()
    return Target.objects.get(name="podman")


@pytest.fixture
def cluster(ada):
    return services.save(
        ada, None, name="cluster-a", kubeconfig_text=kubeconfig(), gateway_address=GATEWAY
    )


@pytest.fixture
def project(ada):
    return Project.objects.create(
        slug="shop", name="Shop", upstream_url="https://example.org/shop.git", created_by=ada
    )
