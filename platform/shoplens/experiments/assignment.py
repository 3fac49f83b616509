"""Assignment of users to the arms of an experiment by a salted hash, without a table of users."""

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
"""Shares are rounded to billionths, so that equal boundaries in two configurations are exactly equal."""


class Arm(Config):
    """One arm of an experiment."""

    name: Identifier = Field(description="Name of the arm, such as `champion`.")
    share: float = Field(
        ge=0, le=1, description="Share of the users that see the arm. 0 reserves the arm's place in the order."
    )


class Assignment(Config):
    """Assignment of users to arms. A hash of salt and user id is a place in [0, 1); each arm owns a range of places.

    When shares change, only users between an old and a new boundary move (`moved` computes their share). If two
    neighbouring arms trade a share, only that share of users moves. So put the shrinking arm between the growing
    arms, for example: challenger, champion, second challenger.
    """

    salt: str = Field(
        min_length=1,
        max_length=256,
        description="Text that is hashed with the user id. Give every experiment its own salt: assignments with "
        "different salts are independent.",
    )
    arms: tuple[Arm, ...] = Field(
        min_length=1,
        max_length=64,
        description="The arms in the order of their ranges in [0, 1). Their shares must sum to 1.",
    )

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
        """End of each arm's range, in billionths. The first range begins at 0."""
        parts, ends = 0.0, []
        for arm in self.arms:
            parts += arm.share * PARTS
            ends.append(round(parts))
        return tuple(ends)

    def share(self, arm: str) -> float:
        """Share of an arm. Raises ShoplensError if there is no such arm."""
        for candidate in self.arms:
            if candidate.name == arm:
                return candidate.share
        raise ShoplensError(f"there is no arm {arm!r}; the arms are {', '.join(one.name for one in self.arms)}")

    def arm(self, user_id: str) -> str:
        """The arm that a user sees. Raises ShoplensError if the id is empty or not valid Unicode."""
        return _at(self, place(self.salt, user_id) * PARTS >> 64)


def place(salt: str, user_id: str) -> int:
    """Place of a user in 0..2^64 - 1, by BLAKE2b (RFC 7693) keyed with the salt.

    Raises ShoplensError if the user id is empty or not valid Unicode.
    """
    try:
        key = hashlib.blake2b(salt.encode(), digest_size=32).digest()
        user = user_id.encode()
    except UnicodeEncodeError:
        raise ShoplensError(
            f"the user id {user_id[:100]!r} is not valid Unicode: it holds half a character (a lone surrogate)"
        ) from None
    if not user:
        raise ShoplensError("the user id is empty: use the session's id for users who are not logged in")
    return int.from_bytes(hashlib.blake2b(user, digest_size=8, key=key).digest(), "big")


def moved(before: Assignment, after: Assignment) -> float:
    """Share of users who change their arm between two assignments. Raises ShoplensError if the salts differ."""
    if before.salt != after.salt:
        raise ShoplensError("the salts differ: every user is assigned anew, so compare assignments of one salt")
    ends = sorted({0, *before.boundaries, *after.boundaries})
    return sum(end - start for start, end in pairwise(ends) if _at(before, start) != _at(after, start)) / PARTS


def _at(assignment: Assignment, part: int) -> str:
    return assignment.arms[bisect_right(assignment.boundaries, part)].name
