"""The pages under docs/ against the code: what a person can set, call, run or meet stands on its page."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

from devaipod_web.accounts.permissions import LEAST_ROLE, ROUTES, Permission, Role
from devaipod_web.api.app import api
from devaipod_web.cli.main import app
from devaipod_web.llm.fit import LABELS
from devaipod_web.reviews.errors import ReviewError
from devaipod_web.reviews.risks import _MARKS, _TEXTS
from devaipod_web.runs.events import Kind
from devaipod_web.runs.states import TRANSITIONS, State
from pods.agents import PACKAGED, PROFILES
from pods.sidecar.protocol import CommandKind, EventKind

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(r"\bDEVAIPOD_[A-Z_]+\b")
FENCED = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def coded(name: str) -> set[str]:
    """What stands between backticks on a page."""
    return set(re.findall(r"`([^`\n]+)`", page(name)))


def rows(name: str) -> dict[str, list[str]]:
    """The rows of all tables of a page: first cell without backticks → the other cells."""
    found = {}
    for line in page(name).splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            first, *more = (cell.strip() for cell in line.strip("|").split(" | "))
            found[first.strip("` |")] = [cell.removesuffix("|").strip() for cell in more]
    return found


# --- settings -----------------------------------------------------------------------------------------------------


@cache
def variables_read() -> set[str]:
    """Names that the product's code reads from its environment, and every DEVAIPOD_ name that it spells."""
    found: set[str] = set()
    for folder in ("devaipod_web", "pods"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(_variables(ast.parse(path.read_text())))
    return found


def _variables(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"DEVAIPOD_[A-Z_]+", node.value):
                yield node.value
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            if called.endswith(("environ.get", "environ.pop", "environ.setdefault", "getenv")):
                yield from _text(node.args[0])
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("os.environ"):
            yield from _text(node.slice)
        elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]) == "os.environ":
            yield from _text(node.left)


def _text(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_every_variable_that_the_code_reads_is_on_the_page_of_settings():
    read = variables_read()
    assert {"DEVAIPOD_HOME", "DATABASE_URL", "DEVAIPOD_MAX_RUNS", "STORAGE_DRIVER"} <= read
    assert read - coded("run/settings.md") == set()


def test_the_page_of_settings_names_no_variable_that_nothing_reads():
    named = {word for word in coded("run/settings.md") if re.fullmatch(r"DEVAIPOD_[A-Z_]+", word)}
    assert named - variables_read() == set()


def test_no_page_names_a_variable_of_ours_that_nothing_reads():
    # The pages for developers also name what the tests and CI read.
    tests = [*(ROOT / "tests").rglob("*.py"), ROOT / ".ci" / "run"]
    of_tests = {name for path in tests for name in NAMED.findall(path.read_text())}
    for path in PAGES:
        read = variables_read() | (of_tests if "develop" in path.parts else set())
        assert set(NAMED.findall(path.read_text())) - read == set(), path


@pytest.mark.parametrize(
    ("name", "default"),
    [
        (name, int(text.replace("_", "")))
        for name, text in re.findall(
            r'_number\("(\w+)", ([\d_]+)\)', (ROOT / "devaipod_web/settings.py").read_text()
        )
    ],
)
def test_the_default_of_a_number_is_the_one_on_its_page(name: str, default: int):
    assert rows("run/settings.md")[name][0] == str(default)


# --- the command and the API --------------------------------------------------------------------------------------


def verbs() -> Iterator[str]:
    root = typer.main.get_command(app)
    for name, command in sorted(root.commands.items()):  # type: ignore[attr-defined]
        more = getattr(command, "commands", None)
        yield from (f"devaipod {name} {inner}" for inner in more) if more else (f"devaipod {name}",)


def test_every_verb_of_the_command_has_a_row_on_its_page():
    found = [re.sub(r" [\[A-Z].*", "", first) for first in rows("use/cli.md")]
    documented = {first for first in found if first.startswith("devaipod ")}
    assert documented == set(verbs())


def test_every_exit_status_of_a_followed_run_is_on_the_page_of_the_command():
    from devaipod_web.cli.follow import DETACHED, OUTCOMES

    assert {str(status) for status in (*OUTCOMES.values(), DETACHED)} <= set(rows("use/cli.md"))


@cache
def operations() -> dict[str, tuple[str, str]]:
    """Operation id → (method and path, least role), from the API itself; that of its own schema is not in the schema."""
    found = {"openapi": "GET /openapi.json"}
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method, operation in methods.items():
            short = path.removeprefix("/api/devaipod")
            found[operation["operationId"]] = f"{method.upper()} {short}"
    return {
        name: (where, str(LEAST_ROLE.get(ROUTES[f"api:{name}"], "none")))
        for name, where in found.items()
    }


def test_every_operation_of_the_api_has_a_row_with_its_path_and_least_role():
    listed = rows("use/api.md")
    for name, (where, role) in operations().items():
        assert listed[name][:2] == [f"`{where}`", role], name


def test_the_permission_table_and_the_page_of_the_api_list_the_same_operations():
    table = {name.removeprefix("api:") for name in ROUTES if name.startswith("api:")}
    assert table == set(operations())
    assert table == {name for name, cells in rows("use/api.md").items() if "`" in cells[0]}


# --- runs, reviews, events ----------------------------------------------------------------------------------------


def test_every_state_and_every_move_of_a_run_is_on_its_page():
    text = page("use/runs.md")
    moves = rows("use/runs.md")
    for state, targets in TRANSITIONS.items():
        # Once with its meaning, once with its moves.
        assert text.count(f"\n| `{state}` |") == 2, state
        assert set(re.findall(r"`(\w+)`", moves[state][0])) == set(targets), state
    assert set(TRANSITIONS) == set(State)


def test_every_risk_is_on_the_page_of_reviews_with_its_kind():
    listed = rows("use/reviews.md")
    for code in _TEXTS:
        assert listed[code][0] == ("mark" if code in _MARKS else "tick"), code


def test_every_refusal_of_a_review_is_on_its_page_with_its_status():
    listed = rows("use/reviews.md")
    for error in ReviewError.__subclasses__():
        assert listed[error.code][0] == str(error.status), error


def own_kinds() -> set[str]:
    return {value for name, value in vars(Kind).items() if name.isupper()}


def test_every_kind_of_event_and_command_is_on_its_page():
    assert {*own_kinds(), *EventKind, *CommandKind} - set(rows("develop/events.md")) == set()


def test_the_page_of_events_lists_no_kind_that_is_not_there():
    listed = set(rows("develop/events.md")) - {"kind"}
    assert listed == {*own_kinds(), *EventKind, *CommandKind}


# --- the host -----------------------------------------------------------------------------------------------------


def test_every_role_and_permission_is_on_its_page():
    assert {*Role, *Permission} - {word.split(":")[0] for word in coded("run/roles.md")} == set()


def test_the_page_of_roles_gives_each_permission_from_its_least_role_on():
    order = list(Role)
    for line in page("run/roles.md").splitlines():
        found = re.match(r"\| `(\w+)`: ", line)
        if not found:
            continue
        given = [cell.strip() == "yes" for cell in line.strip().strip("|").split("|")[1:]]
        least = order.index(LEAST_ROLE[Permission(found.group(1))])
        assert given == [index >= least for index in range(len(order))], line


def finding_codes() -> set[str]:
    """The codes that the doctor can find: the first argument of each `Finding(…)`."""
    tree = ast.parse((ROOT / "devaipod_web/host/doctor.py").read_text())
    return {
        constant.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"
        for constant in ast.walk(node.args[0])
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def test_every_finding_of_the_doctor_is_on_its_page_and_no_other():
    assert finding_codes() == set(rows("run/doctor.md")) - {"code"}


# --- services -----------------------------------------------------------------------------------------------------


def test_every_service_health_and_step_is_on_the_page_of_services():
    from devaipod_web.health.models import Health
    from devaipod_web.health.registry import ALWAYS
    from devaipod_web.health.verbs.steps import Result

    listed = set(rows("run/services.md"))
    assert {*ALWAYS, "provider-<key>"} <= listed
    assert {*Health.values, *Result} <= listed


def test_every_finding_of_a_diagnosis_is_on_its_page_with_its_severity_and_no_other():
    from pods.findings import CODES

    listed = {
        code: cells
        for code, cells in rows("run/diagnostics.md").items()
        if code in coded("run/diagnostics.md")
    }
    assert set(listed) == set(CODES)
    for code, row in CODES.items():
        severity, means, step = listed[code]
        assert severity == str(row.severity), code
        assert means and step, code


# --- links --------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors that a forge gives a page's headings."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_of_a_page_leads_somewhere(path: Path):
    for link in LINK.findall(FENCED.sub("", path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link} names no heading"


def test_every_page_of_the_documentation_begins_with_one_heading():
    for path in DOCS.rglob("*.md"):
        heads = re.findall(r"^# ", FENCED.sub("", path.read_text()), re.MULTILINE)
        assert path.read_text().startswith("# ") and len(heads) == 1, path


# --- agents -------------------------------------------------------------------------------------------------------


def test_every_agent_is_on_its_page_with_its_program_forms_and_the_version_that_its_image_holds():
    table, _, rest = page("use/agents.md").partition("## Images")
    listed = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    assert set(listed) == set(PROFILES)
    for key, profile in PROFILES.items():
        assert profile.program in listed[key]
        for form in profile.forms:
            assert LABELS[form] in listed[key], (key, form)
    for key in PACKAGED:
        lock = json.loads((ROOT / f"images/agents/{key}/package-lock.json").read_text())
        (name,) = lock["packages"][""]["dependencies"]
        version = lock["packages"][f"node_modules/{name}"]["version"]
        assert f"{name} {version}" in rest, key
