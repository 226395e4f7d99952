from __future__ import annotations

import base64
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from devaipod_web.masking import MASK, mask_lines, mask_text

URLSAFE = st.characters(
    whitelist_categories=(),
    whitelist_characters="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
)
#: A token of 256 bits, as `secrets.token_urlsafe(32)` makes it.
TOKENS = st.binary(min_size=32, max_size=32).map(
    lambda raw: base64.urlsafe_b64encode(raw).decode().rstrip("=")
)
PLAIN = st.text(
    st.characters(whitelist_categories=("Ll", "Lu", "Zs"), max_codepoint=0x2FF), max_size=30
)
NAMES = st.sampled_from(
    [
        *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GITLAB_TOKEN", "DB_PASSWORD", "client_secret"),
        *("password", "api-key", "X-Api-Key", "AWS_SECRET_ACCESS_KEY", "credential", "token"),
    ]
)
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, blacklist_characters="\"'\\,;}]&"),
    min_size=8,
    max_size=60,
)


@given(PLAIN, TOKENS, PLAIN, st.sampled_from([" ", "\n", "=", '"', ": ", "/", "("]))
def test_a_run_token_is_masked_wherever_it_stands(before, token, after, edge):
    masked = mask_text(f"{before}{edge}{token}{edge if edge != '(' else ')'}{after}")
    assert token not in masked
    assert MASK in masked


@given(PLAIN, TOKENS, PLAIN)
def test_an_api_token_is_masked_wherever_it_stands(before, token, after):
    masked = mask_text(f"{before} dvp_{token} {after}")
    assert token not in masked


@given(st.text(URLSAFE, min_size=16, max_size=80), st.sampled_from(["Bearer", "bearer", "Basic"]))
def test_the_value_of_an_authorization_header_is_masked(token, scheme):
    assume(token not in f"Authorization: {scheme}")
    for text in (f"Authorization: {scheme} {token}", f'{{"authorization": "{scheme} {token}"}}'):
        assert token not in mask_text(text)


@given(
    NAMES,
    VALUES,
    st.sampled_from(
        ["{0}={1}", "export {0}={1}", "{0}: {1}", '"{0}": "{1}"', "{0} = '{1}'", "--{0}={1} run"]
    ),
)
def test_a_value_behind_a_secrets_name_is_masked(name, value, form):
    text = form.format(name, value)
    assume(value not in form.format(name, ""))
    masked = mask_text(text)
    assert value not in masked, masked
    assert name in masked


@given(st.lists(st.text(URLSAFE, min_size=20, max_size=64), min_size=1, max_size=6), st.booleans())
def test_a_private_key_is_masked_over_all_of_its_lines(body, is_whole):
    lines = ["before", "-----BEGIN OPENSSH PRIVATE KEY-----", *body]
    lines += ["-----END OPENSSH PRIVATE KEY-----", "after"] if is_whole else []
    masked = "\n".join(mask_lines(lines))
    for line in body:
        assert line not in masked
    assert "before" in masked
    assert ("after" in masked) is is_whole


@given(st.text())
def test_a_text_that_was_masked_stays_as_it_is(text):
    once = mask_text(text)
    assert mask_text(once) == once


@given(st.lists(st.from_regex(r"[a-z]{1,8}( [a-z]{1,8}){0,6}", fullmatch=True), max_size=6))
def test_ordinary_words_are_left_alone(lines):
    assume(not any(re.search("bearer|basic", line) for line in lines))
    assert mask_lines(lines) == lines


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f785c0c1b9c5a3d6f1c8f1a2f7d9a9b6d1e0c4a by Ada",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "the token is not there: make one with `devaipod token create`",
        "Basic usage and bearer of news",
        "https://forge.example/acme/payments.git",
    ],
)
def test_what_only_looks_a_little_like_a_secret_is_shown(text):
    assert mask_text(text) == text
