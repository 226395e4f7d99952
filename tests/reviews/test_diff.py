from __future__ import annotations

import os
import time

import pytest

from devaipod_web.reviews import diff
from tests.forges.world import sh, write


class Change:
    """A repository with one commit and one change on top."""

    def __init__(self, folder, before, after, removed=()):
        sh(folder, "init", "-q", "-b", "main", "r")
        self.work = folder / "r"
        write(self.work, {"keep": "x\n", **before})
        self.base = self._commit("one")
        for name in removed:
            (self.work / name).unlink()
        write(self.work, after)
        self.head = self._commit("two")
        self.repository = self.work / ".git"

    def _commit(self, message):
        sh(self.work, "add", "-A")
        sh(self.work, "commit", "-q", "--allow-empty", "-m", message)
        return sh(self.work, "rev-parse", "HEAD")

    def amend(self):
        sh(self.work, "add", "-A")
        sh(self.work, "commit", "-q", "--amend", "-m", "two")
        self.head = sh(self.work, "rev-parse", "HEAD")

    def files(self, **more):
        shown = diff.files(self.repository, self.base, self.head, **more)
        self.note = shown.note
        return {file.entry.path: file for file in shown.files}


def lines(file, kind):
    return [str(line.html) for hunk in file.hunks for line in hunk.lines if line.kind == kind]


def test_lines_have_their_numbers_on_both_sides(tmp_path):
    before = "".join(f"line {n}\n" for n in range(1, 101))
    change = Change(tmp_path, {"a": before}, {"a": before.replace("line 50\n", "new\nnewer\n")})
    (hunk,) = change.files()["a"].hunks
    assert hunk.skipped == 46
    assert [(line.kind, line.old, line.new) for line in hunk.lines] == [
        ("same", 47, 47),
        ("same", 48, 48),
        ("same", 49, 49),
        ("del", 50, None),
        ("add", None, 50),
        ("add", None, 51),
        ("same", 51, 52),
        ("same", 52, 53),
        ("same", 53, 54),
    ]
    (whole,) = change.files(context=diff.FULL_CONTEXT)["a"].hunks
    assert len(whole.lines) == 102


def test_words_that_differ_are_marked(tmp_path):
    change = Change(
        tmp_path,
        {"a": 'return Delivery.objects.filter(status="new")\n'},
        {"a": 'return Delivery.objects.filter(status="pending")\n'},
    )
    file = change.files()["a"]
    assert lines(file, "del") == [
        "return Delivery.objects.filter(status=&quot;<mark>new</mark>&quot;)"
    ]
    assert lines(file, "add") == [
        "return Delivery.objects.filter(status=&quot;<mark>pending</mark>&quot;)"
    ]


def test_html_in_a_change_is_text(tmp_path):
    evil = "<script>alert(1)</script>\n"
    change = Change(tmp_path, {"a": evil}, {"a": evil.replace("1", "2"), "b": evil})
    for file in change.files().values():
        for hunk in file.hunks:
            for line in hunk.lines:
                assert "<script" not in line.html


def test_hidden_characters_are_shown_by_name(tmp_path):
    change = Change(tmp_path, {}, {"a": "x\u202ey\x1b[0m\u200b\r\nf\x0cg\u2028h\x85i\n"})
    first, second = lines(change.files()["a"], "add")
    assert 'title="U+202E right-to-left override">U+202E<' in first
    assert ">\u241b<" in first
    assert ">U+200B<" in first
    assert ">\u240d<" in first
    assert ">\u240c<" in second
    assert ">U+2028<" in second
    assert ">U+0085<" in second


def test_content_cannot_forge_a_header_or_another_file(tmp_path):
    text = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n\\ No newline\n"
    change = Change(tmp_path, {"a": "".join(f"-{x}\n" for x in text.split("\n"))}, {"a": text})
    files = change.files()
    assert list(files) == ["a"]
    assert len(lines(files["a"], "add")) == 7


def test_names_of_every_kind_find_their_lines(tmp_path):
    names = ["we ird", 'quo"te', "tab\tin", "new\nline", "é", "b/x b/x", "back\\slash", "-n", "*"]
    change = Change(tmp_path, {}, {name: f"{number}\n" for number, name in enumerate(names)})
    with open(os.fsencode(change.work) + b"/bad\xff", "wb") as out:
        out.write(b"bytes\n")
    change.amend()
    files = change.files()
    for number, name in enumerate(names):
        assert lines(files[name], "add") == [str(number)]
    assert lines(files["bad\\xff"], "add") == ["bytes"]


def test_files_without_lines_say_what_they_are(tmp_path):
    change = Change(
        tmp_path, {"tool": "x\n", "gone": "y\n"}, {"logo": b"\0\1", "empty": ""}, removed=["gone"]
    )
    (change.work / "tool").chmod(0o755)
    (change.work / "link").symlink_to("/etc/passwd")
    change.amend()
    files = change.files()
    assert "binary" in files["logo"].note
    assert "empty file" in files["empty"].note
    assert files["tool"].entry.kind == "file → executable file"
    assert files["link"].entry.kind == "symbolic link"
    assert lines(files["link"], "add") == ["/etc/passwd"]
    assert files["gone"].entry.status == "deleted"
    assert lines(files["gone"], "del") == ["y"]


def test_a_missing_last_newline_is_said(tmp_path):
    change = Change(tmp_path, {"a": "x"}, {"a": "x\n"})
    assert lines(change.files()["a"], "note") == ["No newline at end of file"]


def test_long_lines_are_cut_and_say_so(tmp_path):
    change = Change(tmp_path, {}, {"a": "x" * 50_000 + "\n"})
    (line,) = lines(change.files()["a"], "add")
    assert "49,000 more characters" in line
    assert len(line) < 1200


def test_long_files_are_cut_and_say_so(tmp_path):
    change = Change(tmp_path, {}, {"a": "x\n" * 6000})
    file = change.files()["a"]
    assert len(lines(file, "add")) == diff.MAX_FILE_LINES
    assert "Only the first 5,000 lines" in file.note


def test_many_files_are_cut_and_say_so(tmp_path):
    change = Change(tmp_path, {}, {f"f/{n:04}": "x\n" for n in range(diff.MAX_FILES + 7)})
    assert len(change.files()) == diff.MAX_FILES
    assert change.note.startswith("7 more files")


def test_a_change_beyond_the_bytes_that_are_read_still_shows_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(diff, "MAX_BYTES", 10_000)
    change = Change(tmp_path, {}, {"big": ("y" * 99 + "\n") * 300, "small": "x\n"})
    files = change.files()
    assert "too large" in files["big"].note
    assert lines(files["small"], "add") == ["x"]


@pytest.mark.parametrize("count", [24, 2000])
def test_marking_words_stays_quick(tmp_path, count):
    before = "".join("a b " * 25 + f"{n}\n" for n in range(count))
    change = Change(tmp_path, {"a": before}, {"a": before.replace("a", "c")})
    begun = time.monotonic()
    change.files()
    assert time.monotonic() - begun < 5


def test_attributes_of_the_repository_hide_nothing(tmp_path):
    change = Change(
        tmp_path, {"a.py": "x = 1\n"}, {"a.py": "x = 2\n", ".gitattributes": "*.py -diff\n"}
    )
    assert lines(change.files()["a.py"], "add") == ["x = <mark>2</mark>"]
