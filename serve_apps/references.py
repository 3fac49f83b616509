"""References to models: `NAME` (the version served by default), `NAME@ALIAS` or `NAME/VERSION`."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple

from pydantic import Field

_PATTERN = r"(?P<name>[\w.-]{1,100})(@(?P<alias>[\w-]{1,100})|/(?P<version>[1-9][0-9]{0,8}))?"
_PARTS = re.compile(_PATTERN)
ModelRef = Annotated[str, Field(pattern=f"^{_PATTERN}$", examples=["eclip"])]
"""A reference in a configuration."""
AskedModel = Annotated[
    str,
    Field(description="a name (its champion), `name@alias` or `name/version`; any other gets 404", examples=["eclip"]),
]
"""The `model` of a request. Clients send all kinds of names here; `read` knows which are references."""


class Reference(NamedTuple):
    """A name with an alias, with a version, or alone."""

    name: str
    alias: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.name}/{self.version}"
        return self.name if self.alias is None else f"{self.name}@{self.alias}"


def read(reference: str) -> Reference | None:
    """The parts of `reference`; None if it is no reference."""
    match = _PARTS.fullmatch(reference)
    if match is None:
        return None
    version = match["version"]
    return Reference(match["name"], match["alias"], None if version is None else int(version))


def name_of(reference: str) -> str:
    """`eclip@champion`, `eclip/3` or `eclip` -> `eclip`."""
    return re.split("[@/]", reference)[0]
