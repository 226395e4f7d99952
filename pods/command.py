"""The profile `command`: any program of any image, without the Agent Client Protocol.

The agent container's entry speaks a few words with the sidecar over three FIFOs, one word or number a line:

    out    entry → sidecar   `ready` once the program is found, `exit N` at the program's end; closed by the container's end
    in     sidecar → entry   `run`, then signals by name: `INT`, `TERM`, `KILL`
    stdin  sidecar → program its standard input, when the run is interactive

So the sidecar alone decides whether the program runs: an attempt that finds its command ended in an earlier one only stages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from pods.sidecar.protocol import COMMAND, ENTRY_EXIT, ENTRY_READY, ENTRY_RUN, SIGNALS
from pods.spec import EXIT_AGENT_MISSING, PROXY_PORT, STDIO_DIR

#: Exit code of the entry when the folder to begin in is not in the workspace.
EXIT_NO_WORKDIR = 44

PROXY_URL = f"http://127.0.0.1:{PROXY_PORT}"
#: Programs insist on a key; the sidecar's proxy drops it and puts the run's own token in its place.
PLACEHOLDER_KEY = "held-by-the-gateway"

#: What names of credentials end in, and how their values begin. Anybody who may look at the host sees a container's environment.
SECRET_NAME = re.compile(
    r"(?i)(^|_)(API_?KEY|ACCESS_KEY(_ID)?|SECRET_KEY|PRIVATE_KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$"
)
SECRET_VALUE = re.compile(
    r"(dvp_|sk-|ghp_|gho_|ghs_|github_pat_|glpat-|AKIA[A-Z0-9]{12}|-----BEGIN )"
)

#: `kill -1` reaches every process of the container but its first, as Ctrl-C does in a terminal: the signals need no process id that
#: could be another's by now. The program runs in the foreground, since POSIX has background programs ignore SIGINT.
_ENTRY = """\
cd {workdir} 2>/dev/null || {{ echo "devaipod: the folder "{workdir}" is not there" >&2; exit {no_workdir}; }}
found() (
  case $1 in */*) [ -f "$1" ] && [ -x "$1" ]; exit;; esac
  IFS=:
  for folder in $PATH; do [ -f "$folder/$1" ] && [ -x "$folder/$1" ] && exit 0; done
  exit 1
)
found "$1" || {{ printf 'devaipod: the program %s is not in this image\\n' "$1" >&2; exit {missing}; }}
exec 9>{stdio}/out 8<>{stdio}/in
echo {ready} >&9
read -r word <&8
[ "$word" = {run} ] || exit 0
while read -r word; do
  case $word in {signals}) kill -s "$word" -- -1;; esac
done <&8 8<&- 9>&- >/dev/null 2>&1 &
"$@" {stdin} 8<&- 9>&-
code=$?
trap '' PIPE
echo "{exit} $code" >&9 2>/dev/null
exit "$code"
"""


def entry_argv(
    argv: Sequence[str], *, workdir: str, interactive: bool, before: Sequence[str] = ()
) -> tuple[str, ...]:
    """The agent container's command: `sh` alone, which any image has, and the program's words as its arguments.

    It goes to `workdir` (exit 44 when it isn't there), finds the program (exit 42 when it isn't in the image), waits until the
    sidecar says `run`, and ends with the program's own exit code. `before` are lines of shell that come first.
    """
    script = _ENTRY.format(
        stdio=STDIO_DIR,
        workdir=shlex.quote(workdir),
        no_workdir=EXIT_NO_WORKDIR,
        missing=EXIT_AGENT_MISSING,
        ready=ENTRY_READY,
        run=ENTRY_RUN,
        exit=ENTRY_EXIT,
        signals="|".join(SIGNALS),
        # Opened both ways, it never ends: the program would take its end for the end of what people say.
        stdin=f"<>{STDIO_DIR}/stdin" if interactive else "</dev/null",
    )
    return ("sh", "-c", "\n".join([*before, script]), "sh", *argv)


def command_env(model: str) -> dict[str, str]:
    """Where models, tools and the staging forge are, all of it the sidecar's address in the pod. No secret is among them.

    The names are those of the two-domain design: LLMPROXY_URL is the base of all model routes, FORGEJO_URL holds the run's own
    repository as `repo.git`, SERVICE_GATOR_URL is an MCP endpoint.
    """
    return {
        "OPENAI_BASE_URL": f"{PROXY_URL}/llm/v1",
        "OPENAI_API_KEY": PLACEHOLDER_KEY,
        "OPENAI_MODEL": model,
        # Anthropic's clients add /v1/messages themselves.
        "ANTHROPIC_BASE_URL": f"{PROXY_URL}/llm",
        "ANTHROPIC_API_KEY": PLACEHOLDER_KEY,
        # Google's add /v1beta.
        "GOOGLE_GEMINI_BASE_URL": f"{PROXY_URL}/llm",
        "GEMINI_API_KEY": PLACEHOLDER_KEY,
        "LLMPROXY_URL": f"{PROXY_URL}/llm",
        "SERVICE_GATOR_URL": f"{PROXY_URL}/mcp/service-gator",
        "FORGEJO_URL": f"{PROXY_URL}/git",
    }


def is_ours(name: str) -> bool:
    """Whether a variable is one that we set ourselves, whatever a caller says."""
    return name in _OURS


def looks_secret(name: str, value: str) -> bool:
    """Whether a variable is, by its name or its value, a credential. Ours are placeholders, and win over what is given."""
    if is_ours(name):
        return False
    return bool(value) and bool(SECRET_NAME.search(name) or SECRET_VALUE.match(value))


__all__ = [
    "COMMAND",
    "EXIT_NO_WORKDIR",
    "command_env",
    "entry_argv",
    "is_ours",
    "looks_secret",
]

_OURS: Mapping[str, None] = dict.fromkeys([*command_env(""), "HOME"])
