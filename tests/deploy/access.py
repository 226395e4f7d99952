"""What the control plane's and the agents' accounts may ask the API server for: one table, held against the documents and the server."""

from __future__ import annotations

AGENTS = "devaipod-agents"
INFRA = "devaipod-infra"
CONTROL_PLANE = f"system:serviceaccount:{INFRA}:control-plane"
AGENT = f"system:serviceaccount:{AGENTS}:default"

#: resource (with `/subresource`) → verbs of the control plane in the agents' namespace.
GRANTED = {
    "pods": ("create", "get", "list", "watch", "patch", "delete"),
    "pods/log": ("get",),
    "pods/exec": ("create", "get"),
    "secrets": ("create", "delete"),
    "persistentvolumeclaims": ("create", "list", "delete"),
    "resourcequotas": ("list",),
    "events": ("list",),
}

#: (verb, resource, namespace; "" is the whole cluster) that the control plane is refused.
REFUSED = [
    # Its own namespace: there lie the installation's own secrets.
    *((verb, "secrets", INFRA) for verb in ("get", "list", "create", "delete")),
    *((verb, "pods", INFRA) for verb in ("get", "list", "create", "delete")),
    ("create", "pods/exec", INFRA),
    # Others' namespaces and the cluster.
    ("get", "secrets", "kube-system"),
    ("list", "pods", "default"),
    ("list", "pods", ""),
    ("list", "secrets", ""),
    ("list", "nodes", ""),
    ("get", "nodes/proxy", ""),
    ("list", "namespaces", ""),
    ("create", "namespaces", ""),
    ("create", "persistentvolumes", ""),
    ("impersonate", "users", ""),
    ("list", "customresourcedefinitions.apiextensions.k8s.io", ""),
    # In the agents' namespace: what would weaken it.
    ("get", "secrets", AGENTS),
    ("list", "secrets", AGENTS),
    ("watch", "secrets", AGENTS),
    ("update", "pods", AGENTS),
    ("deletecollection", "pods", AGENTS),
    ("create", "pods/attach", AGENTS),
    ("create", "pods/portforward", AGENTS),
    ("update", "pods/ephemeralcontainers", AGENTS),
    ("patch", "pods/ephemeralcontainers", AGENTS),
    ("create", "serviceaccounts/token", AGENTS),
    ("create", "configmaps", AGENTS),
    ("create", "resourcequotas", AGENTS),
    ("delete", "resourcequotas", AGENTS),
    ("create", "services", AGENTS),
    ("create", "deployments.apps", AGENTS),
    ("create", "jobs.batch", AGENTS),
    ("delete", "networkpolicies.networking.k8s.io", AGENTS),
    ("create", "networkpolicies.networking.k8s.io", AGENTS),
    ("create", "roles.rbac.authorization.k8s.io", AGENTS),
    ("create", "rolebindings.rbac.authorization.k8s.io", AGENTS),
    ("patch", "namespaces", AGENTS),
]


def granted() -> set[tuple[str, str]]:
    """(verb, resource) of everything that is granted."""
    return {(verb, resource) for resource, verbs in GRANTED.items() for verb in verbs}


def attributes(verb: str, resource: str, namespace: str) -> dict[str, str]:
    """The `resourceAttributes` of an access review: `pods/log`, `jobs.batch`."""
    plain, _, subresource = resource.partition("/")
    name, _, group = plain.partition(".")
    return {
        "verb": verb,
        "group": group,
        "resource": name,
        "subresource": subresource,
        "namespace": namespace,
    }
