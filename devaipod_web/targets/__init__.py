"""Targets: where pods run. This host's podman is one, each cluster's namespace another (docs/decisions/0016)."""
