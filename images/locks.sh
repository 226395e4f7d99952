#!/bin/sh
# Writes every lock file anew: Python's by uv (in an environment of its own, thrown away), npm's by npm.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check uv
compile() { "$tools/venv/bin/uv" pip compile --quiet --no-header --no-annotate --no-emit-index-url "$@"; }
# What is pinned already stays; name a package as argument to move it: `sh images/locks.sh django`.
for name in "$@"; do set -- "$@" --upgrade-package "$name"; shift; done
compile --universal --python-version 3.11 "$@" pyproject.toml --output-file requirements.lock
compile --universal --python-version 3.11 --extra dev "$@" pyproject.toml --output-file requirements-dev.lock
compile --generate-hashes --python-version 3.13 "$@" images/sidecar/requirements.in --output-file images/sidecar/requirements.txt
if command -v npm >/dev/null; then
    for folder in images/agent images/agents/*/; do
        (cd "$folder" && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --no-audit --no-fund)
    done
fi
