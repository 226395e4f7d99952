"""Whether the kernel killed a container for its memory, where podman does not know.

conmon 2.1 misses it on hosts with mixed cgroups: podman then shows exit code 137 and `OOMKilled: false`. The kernel's own
log names the cgroup ("oom-kill:constraint=CONSTRAINT_MEMCG,…,task_memcg=/libpod_parent/libpod-<id>"). Only root reads it.
"""

from __future__ import annotations

import os
from pathlib import Path

KERNEL_LOG = Path("/dev/kmsg")
#: One read gives one record (kernel: Documentation/ABI/testing/dev-kmsg).
RECORD_BYTES = 8192
MAX_RECORDS = 100_000
KILLED = 128 + 9


def killed_for_memory(container: str, *, log: Path = KERNEL_LOG) -> bool:
    """Whether the kernel's log says so of the container with this full id. False when the log can't be read. Blocking."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    name = f"libpod-{container}".encode()
    try:
        for _ in range(MAX_RECORDS):
            try:
                record = os.read(descriptor, RECORD_BYTES)
            except BrokenPipeError:
                continue  # the oldest records were overwritten; the next read goes on behind them
            if not record:
                return False
            if b"oom-kill:" in record and name in record:
                return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
