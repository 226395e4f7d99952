from __future__ import annotations

from pods.sidecar import translate


def test_a_plan_kept_by_a_tool_becomes_a_plan():
    todos = [{"content": "Look", "status": "completed", "priority": "high", "id": "1"}]
    update = {"sessionUpdate": "tool_call_update", "toolCallId": "a", "rawInput": {"todos": todos}}
    assert translate.planned(update) == [
        {"content": "Look", "status": "completed", "priority": "high"}
    ]


def test_what_only_looks_like_one_does_not():
    for given in (  # type: ignore[var-annotated]
        None,
        [],
        {"todos": "x"},
        {"todos": []},
        {"todos": [1]},
        {"todos": [{"content": "x"}]},
    ):
        assert translate.planned({"rawInput": given}) == []
