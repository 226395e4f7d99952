from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from devaipod_web.runs import markdown
from devaipod_web.runs.states import State
from devaipod_web.templatetags import show


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.42, "0.4 s"),
        (38, "38 s"),
        (252, "4 m 12 s"),
        (120, "2 m"),
        (7500, "2 h 05 m"),
        (7200, "2 h"),
        (200_000, "2 d 7 h"),
        (-5, "0 s"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert show.duration(seconds) == said


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (None, "–"),
        (Decimal(0), "$0.00"),
        (Decimal("0.83121"), "$0.8312"),
        (Decimal("0.00001"), "< $0.0001"),
        (Decimal("1234.5"), "$1,234.50"),
    ],
)
def test_money_shows_a_cents_fraction_below_a_dollar(amount, said):
    assert show.money(amount) == said


def test_bytes_counts_and_moments_are_short():
    assert show.size(3 * 1024**3) == "3 GiB"
    assert show.size(1536) == "1.5 KiB"
    assert show.thousands(412_000) == "412 k"
    assert show.ago(timezone.now() - timedelta(hours=5, minutes=2)) == "5 h ago"
    assert show.ago(None) == "never"
    assert show.until(timezone.now() + timedelta(hours=5, minutes=2)) == "in 5 h"
    assert show.until(timezone.now() + timedelta(seconds=4.5)) == "in 4 s"
    assert show.until(timezone.now() - timedelta(seconds=1)) == show.until(None) == "now"


def test_every_state_has_a_word_a_shape_and_a_tone_of_its_own():
    looks = [show.state_look(state) for state in State.values]
    assert len({look.word for look in looks}) == len(State.values)
    assert all(look.shape and look.tone for look in looks)


def test_hidden_characters_of_a_pod_are_named_and_markup_is_text():
    html = str(show.visible("<b>\u202ea\nb\x07"))
    assert "<b>" not in html
    assert "U+202E" in html
    assert "\u202e" not in html
    assert "a\nb" in html


def test_a_log_line_loses_its_colours_and_keeps_its_words():
    assert str(show.log_text("\x1b[1;32mok\x1b[0m \x1b]0;title\x07done\r")) == "ok done"


def test_markdown_loads_nothing_and_runs_nothing():
    html = str(
        markdown.render(
            "**b** <script>x</script> ![pic](https://evil.example/x.png) [bad](javascript:alert(1)) "
            "[good](https://example.org)\n\n`\u202e`\n\n```html\n<img src=x>\n```"
        )
    )
    assert "<strong>b</strong>" in html
    assert "<script" not in html
    assert "<img" not in html
    assert 'href="javascript' not in html
    assert 'rel="noopener noreferrer nofollow"' in html
    assert "\u202e" not in html


def test_a_very_long_text_is_cut_and_says_so():
    html = str(markdown.render("x" * (markdown.MAX_CHARACTERS + 5)))
    assert "5 more characters" in html
