"""Shares, stability and independence of arms, against the configuration and against counted users."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shoplens.config import ConfigError, validate
from shoplens.errors import ShoplensError
from shoplens.experiments.assignment import PARTS, Assignment, moved

USERS = [f"user-{n}" for n in range(60_000)]


def assignment(salt: str = "similar-1", **shares: float) -> Assignment:
    return validate(
        Assignment, {"salt": salt, "arms": [{"name": name, "share": share} for name, share in shares.items()]}, "test"
    )


def arms(config: Assignment, users: list[str] = USERS) -> np.ndarray:
    return np.array([config.arm(user) for user in users])


def test_shares_are_those_of_the_configuration() -> None:
    shares = {"champion": 0.7, "challenger": 0.2, "other": 0.1}
    found = arms(assignment(**shares))
    counts = [(found == name).sum() for name in shares]
    assert stats.chisquare(counts, [len(USERS) * share for share in shares.values()]).pvalue > 1e-3


def test_an_arm_is_the_range_that_holds_the_hash() -> None:
    """The hash is BLAKE2b keyed with the salt's BLAKE2b, as a number in [0, 1)."""
    config = assignment("s", a=0.25, b=0.5, c=0.25)
    for user in ["1", "콩두부", "x" * 10_000]:
        key = hashlib.blake2b(b"s", digest_size=32).digest()
        at = int(hashlib.blake2b(user.encode(), digest_size=8, key=key).hexdigest(), 16) / 2**64
        assert config.arm(user) == ("a" if at < 0.25 else "b" if at < 0.75 else "c")


def test_two_salts_are_independent() -> None:
    one, two = (arms(assignment(salt, a=0.5, b=0.3, c=0.2)) for salt in ("similar-1", "similar-2"))
    met = np.array([[((one == x) & (two == y)).sum() for x in "abc"] for y in "abc"])
    assert stats.chi2_contingency(met).pvalue > 1e-3


def test_ids_in_sequence_are_spread_like_any_others() -> None:
    """Odd ids, the first ids and ids of one length have the same shares as all ids."""
    found = arms(assignment(a=0.5, b=0.5)) == "a"
    for some in (found[1::2], found[:1000], found[10_000:20_000]):
        assert stats.binomtest(int(some.sum()), len(some)).pvalue > 1e-3
    together = (found[1:] & found[:-1]).mean()
    assert together == pytest.approx(0.25, abs=0.01)


@given(st.lists(st.integers(0, 100), min_size=3, max_size=3), st.lists(st.integers(0, 100), min_size=3, max_size=3))
def test_a_user_moves_only_where_a_boundary_passed_over_it(old: list[int], new: list[int]) -> None:
    old[0] += sum(old) == 0
    new[0] += sum(new) == 0
    before, after = (
        assignment(**dict(zip("abc", (part / sum(parts) for part in parts), strict=True))) for parts in (old, new)
    )
    users = USERS[:200]
    changed = arms(before, users) != arms(after, users)
    share = moved(before, after)
    assert 0 <= share <= 1
    assert moved(after, before) == pytest.approx(share)
    if not share:
        assert not changed.any()
    least = sum(abs(x - y) for x, y in zip(before.boundaries, after.boundaries, strict=True)) / PARTS
    assert share <= least + 1e-12


def test_an_arm_between_two_that_grow_gives_each_its_users_and_no_other_moves() -> None:
    before = assignment(first=0.05, champion=0.9, second=0.05)
    after = assignment(first=0.2, champion=0.7, second=0.1)
    was, became = arms(before), arms(after)
    assert set(became[was == "first"]) == {"first"}
    assert set(became[was == "second"]) == {"second"}
    assert (was != became).mean() == pytest.approx(0.2, abs=0.01)
    assert moved(before, after) == pytest.approx(0.2)


def test_an_arm_of_no_share_is_seen_by_none() -> None:
    assert set(arms(assignment(a=0, b=1, c=0))) == {"b"}
    assert set(arms(assignment(a=0, b=0, c=1), USERS[:1000])) == {"c"}
    tenths = assignment(**{f"arm{n}": 0.1 for n in range(10)})
    assert tenths.boundaries == tuple(PARTS // 10 * n for n in range(1, 11))


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"a": 0.5, "b": 0.4}, "must sum to 1, not to 0.9"),
        ({"a": 0.5, "b": 0.6}, "must sum to 1, not to 1.1"),
        ({"a": -0.5, "b": 1.5}, "greater than or equal to 0"),
        ({"a": float("nan"), "b": 0.5}, "cannot be used"),
        ({}, "at least 1 item"),
    ],
)
def test_shares_that_are_no_partition_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        assignment(**shares)


def test_what_is_no_user_is_refused() -> None:
    config = assignment(a=1)
    with pytest.raises(ShoplensError, match="is empty"):
        config.arm("")
    with pytest.raises(ShoplensError, match="half a character"):
        config.arm("\ud83d")
    with pytest.raises(ShoplensError, match="no arm 'b'; the arms are a"):
        config.share("b")
    with pytest.raises(ShoplensError, match="the salts differ"):
        moved(config, assignment("other", a=1))
    with pytest.raises(ConfigError, match="two arms have one name"):
        validate(Assignment, {"salt": "s", "arms": [{"name": "a", "share": 0.5}] * 2}, "test")
