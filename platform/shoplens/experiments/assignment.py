"""Which arm of an experiment a user sees: a salted hash, so that no table of users has to be kept."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from functools import cached_property
from itertools import pairwise

from pydantic import Field, model_validator

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.schema import Identifier

PARTS = 10**9
"""Shares are counted in billionths, so that two configurations that state a boundary alike have it alike."""


class Arm(Config):
    """`share` of the users see it; 0 keeps its place for later."""

    name: Identifier
    share: float = Field(ge=0, le=1)


class Assignment(Config):
    """Users are spread over [0, 1) by a hash of salt and id; arms take ranges of it in their order here.

    A user's place depends on salt and id alone. When shares change, those users move whose place lies between an
    old boundary and the new one, and no others: `moved` says how many. Two neighbours that trade share move what
    is traded and nothing else, so write the arm that gives between the arms that grow, such as challenger,
    champion, second challenger. A new salt spreads the users anew, independently of the old one: give every
    experiment its own.
    """

    salt: str = Field(min_length=1, max_length=256)
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _is_a_partition(self) -> Assignment:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"two arms have one name: {', '.join(sorted(names))}")
        if self.boundaries[-1] != PARTS:
            raise ValueError(f"the shares must sum to 1, not to {sum(arm.share for arm in self.arms):.10g}")
        return self

    @cached_property
    def boundaries(self) -> tuple[int, ...]:
        """Where each arm's range ends, in parts; the first begins at 0."""
        parts, ends = 0.0, []
        for arm in self.arms:
            parts += arm.share * PARTS
            ends.append(round(parts))
        return tuple(ends)

    def share(self, arm: str) -> float:
        """Raises ShoplensError if there is no such arm."""
        for one in self.arms:
            if one.name == arm:
                return one.share
        raise ShoplensError(f"there is no arm {arm!r}; the arms are {', '.join(one.name for one in self.arms)}")

    def arm(self, user_id: str) -> str:
        """The arm that the user sees. Raises ShoplensError if the id is empty or no text."""
        return _at(self, place(self.salt, user_id) * PARTS >> 64)


def place(salt: str, user_id: str) -> int:
    """Where the user stands among 2^64 places: BLAKE2b (RFC 7693) keyed with the salt."""
    try:
        key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
        user = user_id.encode()
    except UnicodeEncodeError:
        raise ShoplensError(f"the user id {user_id[:100]!r} is no text: it holds half a character") from None
    if not user:
        raise ShoplensError("the user id is empty: give the session's id where nobody is logged in")
    return int.from_bytes(hashlib.blake2b(user, digest_size=8, key=key).digest(), "big")


def moved(before: Assignment, after: Assignment) -> float:
    """The share of users whose arm the change of configuration changes. Raises ShoplensError if the salts differ."""
    if before.salt != after.salt:
        raise ShoplensError("the salts differ: every user is assigned anew")
    ends = sorted({0, *before.boundaries, *after.boundaries})
    return sum(end - start for start, end in pairwise(ends) if _at(before, start) != _at(after, start)) / PARTS


def _at(assignment: Assignment, part: int) -> str:
    return assignment.arms[bisect_right(assignment.boundaries, part)].name
