"""Attribution tokens: what they say, whom they hide, and that nobody else can make one."""

from __future__ import annotations

import base64

import pytest

from headrace.model.attribution import Tokens

KEY = b"k" * 32


def test_a_token_says_release_rollout_and_time_and_hides_the_person():
    tokens = Tokens(KEY)
    token = tokens.new(
        release="r-000042", user_key="u:eve", time_us=1_700_000_000_000_000, rollout="ro-000007", arm="canary"
    )
    facts = tokens.facts(token)
    assert (facts.release, facts.time_us) == ("r-000042", 1_700_000_000_000_000)
    assert (facts.rollout, facts.arm, facts.track) == ("ro-000007", "canary", "stable")
    assert "eve" not in base64.urlsafe_b64decode(token + "==").decode(errors="replace")
    assert token.replace("-", "").replace("_", "").isalnum()


def test_tokens_of_one_person_share_the_hash_and_nothing_else():
    tokens = Tokens(KEY)
    first, second = (tokens.facts(tokens.new(release="r", user_key="u:eve", time_us=1)) for _ in range(2))
    assert first.person == second.person
    assert first.answer_id != second.answer_id


def test_a_token_is_of_the_person_whom_it_was_given_to():
    tokens = Tokens(KEY)
    facts = tokens.facts(tokens.new(release="r", user_key="u:eve", time_us=1))
    assert tokens.is_of(facts, "u:eve")
    assert not tokens.is_of(facts, "u:bob")


def test_a_token_of_another_key_is_refused():
    token = Tokens(b"x" * 32).new(release="r", user_key="u:eve", time_us=1)
    with pytest.raises(ValueError, match="not an attribution token"):
        Tokens(KEY).facts(token)


def test_a_token_with_any_byte_changed_is_refused():
    tokens = Tokens(KEY)
    token = tokens.new(release="r-000042", user_key="u:eve", time_us=1, arm="canary", rollout="ro-000001")
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ValueError, match="not an attribution token"):
            tokens.facts(base64.urlsafe_b64encode(changed).decode().rstrip("="))


@pytest.mark.parametrize("token", ["", "x", "!!!", "A" * 40, "ü"])
def test_a_foreign_token_is_refused(token):
    with pytest.raises(ValueError, match="token"):
        Tokens(KEY).facts(token)


@pytest.mark.parametrize("spelled", ["{}=", "{}==", "{}!", "{} ", "\n{}", "{}A"])
def test_a_token_has_one_spelling(spelled):
    tokens = Tokens(KEY)
    with pytest.raises(ValueError, match="not an attribution token"):
        tokens.facts(spelled.format(tokens.new(release="r", user_key="u:eve", time_us=1)))


def test_the_bits_that_base64_leaves_over_are_not_free():
    tokens = Tokens(KEY)
    for size in range(1, 4):
        token = tokens.new(release="r" * size, user_key="u:eve", time_us=1)
        taken = 0
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            try:
                tokens.facts(token[:-1] + last)
            except ValueError:
                continue
            taken += 1
        assert taken == 1
