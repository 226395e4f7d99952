"""Where agents run: pod documents, container backends and the sidecar. Imports nothing of devaipod_web."""
