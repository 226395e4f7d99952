#!/bin/sh
# Prints a Python of at least 3.11; as root on a Debian it installs one when there is none.
set -eu
find_one() {
    for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}
find_one && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "… installing Python" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -q update && apt-get -q install -y --no-install-recommends python3 python3-venv; } >/dev/null
    find_one && exit 0
fi
cat >&2 <<'END'
Python 3.11 or newer is needed and not here. Run this once, then start again:
  Debian 12, Ubuntu 24.04:  sudo apt-get install -y python3 python3-venv
  Fedora:                   sudo dnf install -y python3
END
exit 1
