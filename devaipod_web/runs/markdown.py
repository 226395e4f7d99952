"""Markdown from agents and people, through one parser and one sanitiser.

Nothing is loaded from outside: an image becomes its description and a link to where it would come from. Links are marked as
leading outside and give no referrer away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

from devaipod_web.reviews.diff import to_html

#: Characters of one text that are rendered; the rest is said to be there.
MAX_CHARACTERS = 100_000
TAGS = {
    "p", "br", "hr", "em", "strong", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a", "span", "bdi",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"a": {"href"}, "ol": {"start"}, "span": {"class", "title"}}


def _image(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    """An image is named, never loaded."""
    token = tokens[index]
    return f"[image: {escape(token.content or token.attrGet('src') or '')}]"


def _text(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    """Text with bidirectional and control characters named."""
    return str(to_html(tokens[index].content))


def plain(text: str) -> SafeString:
    """Text of any number of lines as safe HTML, with characters that would not be seen named."""
    return mark_safe("\n".join(to_html(line) for line in text.split("\n")))  # noqa: S308 - each line is escaped


def _code(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    """Code inside a line."""
    return f"<code>{to_html(tokens[index].content)}</code>"


def _block(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any
) -> str:
    """A block of code."""
    return f"<pre><code>{plain(tokens[index].content)}</code></pre>\n"


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": False, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    parser.add_render_rule("text", _text)
    parser.add_render_rule("code_inline", _code)
    parser.add_render_rule("code_block", _block)
    parser.add_render_rule("fence", _block)
    return parser


_PARSER = _parser()


def render(text: str) -> SafeString:
    """Safe HTML of `text`."""
    cut = text[:MAX_CHARACTERS]
    html = nh3.clean(
        _PARSER.render(cut),
        tags=TAGS,
        attributes=ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"class": "outside", "target": "_blank"}},
    )
    if len(text) > MAX_CHARACTERS:
        html += f"<p>… {len(text) - MAX_CHARACTERS:,} more characters</p>"
    return mark_safe(html)  # noqa: S308 - nh3 has cleaned it
