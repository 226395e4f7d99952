"""What this host needs before anything runs: packages, podman's configuration and service, images, doctor.

Imports nothing of Django and, but for typing, nothing that is not in Python itself: it runs with the system's Python
on a machine where nothing is installed yet.
"""
