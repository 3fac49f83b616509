"""Which release goes live when: the rollout's logic over replicas that are plain dicts."""

from __future__ import annotations

import asyncio

import pytest
from ray.serve.exceptions import RayServeException

from serve_apps.release import Missing, Release
from serve_apps.rollout import Convergence, RegisteredName, capabilities_of
from shoplens.errors import ShoplensError

ONE = Release("eclip", "eclip/1", "indexes/1", "a")
TWO = Release("eclip", "eclip/2", "indexes/2", "b")


class Cluster:
    """Replicas, a registry, and a record of what was done to them."""

    def __init__(self, replicas: int = 2, needs_index: bool = True) -> None:
        self.replicas: list[dict[str, Release]] = [{} for _ in range(replicas)]
        self.champion: Release | Missing = Missing("none is champion")
        self.challenger: Release | Missing = Missing("none is challenger")
        self.unfit: set[Release] = set()
        self.done: list[tuple[str, str]] = []
        self.convergence = Convergence(
            "champion", needs_index, self._look_up, self._states, self._prepare, self._activate
        )

    async def _look_up(self, reference: str) -> Release | Missing:
        return {"eclip@champion": self.champion, "eclip@challenger": self.challenger, "eclip/2": TWO}[reference]

    async def _states(self) -> list[dict[str, Release]]:
        if not self.replicas:
            raise RayServeException("no replica yet")
        return [dict(replica) for replica in self.replicas]

    async def _prepare(self, release: Release) -> None:
        self.done.append(("prepare", release.version))
        if release in self.unfit:
            raise ShoplensError("the weights do not fit")

    async def _activate(self, reference: str, release: Release) -> None:
        self.done.append(("activate", release.version))
        for replica in self.replicas:
            replica[reference] = release

    def steps(self, n: int = 1, reference: str = "eclip") -> None:
        for _ in range(n):
            asyncio.run(self.convergence.step(reference))

    @property
    def served(self) -> set[str]:
        return {replica["eclip"].version for replica in self.replicas if "eclip" in replica}


def test_nothing_promoted_then_the_first_promotion_then_the_next() -> None:
    cluster = Cluster()
    cluster.steps(3)
    assert cluster.done == []
    assert cluster.convergence.trouble["eclip"] == "none is champion"
    cluster.champion = ONE
    cluster.steps(3)
    assert cluster.done == [("prepare", "eclip/1"), ("activate", "eclip/1")]
    cluster.champion = TWO
    cluster.steps(3)
    assert cluster.served == {"eclip/2"}
    cluster.champion = ONE
    cluster.steps()
    assert cluster.served == {"eclip/1"}
    assert cluster.convergence.trouble == {}


def test_a_version_without_index_waits_and_the_old_pair_goes_on() -> None:
    cluster = Cluster()
    cluster.champion = ONE
    cluster.steps()
    cluster.champion = Release("eclip", "eclip/2")
    cluster.steps(2)
    assert cluster.served == {"eclip/1"}
    assert "build_index" in cluster.convergence.trouble["eclip"]
    cluster.champion = TWO
    cluster.steps()
    assert cluster.served == {"eclip/2"}


def test_without_search_no_index_is_needed() -> None:
    cluster = Cluster(needs_index=False)
    cluster.champion = Release("eclip", "eclip/2")
    cluster.steps()
    assert cluster.served == {"eclip/2"}


def test_an_index_built_anew_for_the_same_version_is_taken_up() -> None:
    cluster = Cluster()
    cluster.champion = ONE
    cluster.steps()
    cluster.champion = Release("eclip", "eclip/1", "indexes/1", "anew")
    cluster.steps()
    assert cluster.replicas[0]["eclip"].stamp == "anew"


def test_a_release_that_is_not_fit_is_never_active_and_not_tried_at_every_look() -> None:
    cluster = Cluster()
    cluster.champion = ONE
    cluster.steps()
    cluster.unfit.add(TWO)
    cluster.champion = TWO
    cluster.steps(5)
    assert cluster.served == {"eclip/1"}
    assert cluster.done.count(("prepare", "eclip/2")) == 1
    assert "the weights do not fit" in cluster.convergence.trouble["eclip"]


def test_a_replica_that_joined_late_is_brought_along() -> None:
    cluster = Cluster()
    cluster.champion = ONE
    cluster.steps()
    cluster.replicas.append({})
    cluster.steps()
    assert all(replica == {"eclip": ONE} for replica in cluster.replicas)


def test_replicas_that_are_not_there_yet_are_waited_for() -> None:
    cluster = Cluster(replicas=0)
    cluster.champion = ONE
    with pytest.raises(RayServeException):
        cluster.steps()
    cluster.replicas = [{}]
    cluster.steps()
    assert cluster.served == {"eclip/1"}


def test_a_poller_that_was_restarted_learns_what_is_served_from_the_replicas() -> None:
    cluster = Cluster()
    cluster.replicas = [{"eclip": ONE}, {"eclip": ONE}]
    cluster.champion = Missing("the registry does not answer", outage=True)
    cluster.steps()
    assert cluster.convergence.serving == {"eclip": ONE}
    assert cluster.done == []


def test_what_answers_an_arm_is_followed_beside_the_champion() -> None:
    cluster = Cluster()
    cluster.champion = ONE
    for reference in ("eclip", "eclip@challenger", "eclip/2"):
        cluster.steps(2, reference)
    assert cluster.convergence.trouble == {"eclip@challenger": "none is challenger"}
    cluster.challenger = TWO
    cluster.steps(2, "eclip@challenger")
    assert cluster.replicas == [{"eclip": ONE, "eclip@challenger": TWO, "eclip/2": TWO}] * 2
    cluster.challenger = Missing("none is challenger")
    cluster.steps(2, "eclip@challenger")
    assert cluster.convergence.serving["eclip@challenger"] == TWO, "who is in the arm stays there"


def test_a_model_that_gives_no_vectors_needs_no_index() -> None:
    cluster = Cluster()
    cluster.champion = Release("eclip", "eclip/1", capabilities=("write_text", "a capability of tomorrow"))
    cluster.steps()
    assert cluster.served == {"eclip/1"}
    for gives in ("embed_image", "embed_text", "embed_image_text"):
        cluster.champion = Release("eclip", "eclip/2", capabilities=("write_text", gives))
        cluster.steps()
        assert cluster.served == {"eclip/1"}
        assert "build_index" in cluster.convergence.trouble["eclip"]


def test_names_with_the_alias_are_followed_and_stay_so() -> None:
    cluster = Cluster()
    words, eclip = RegisteredName("words", {"champion": "1"}), RegisteredName("eclip", {"champion": "1"})

    def names(*registered: RegisteredName) -> tuple[str, ...]:
        return asyncio.run(cluster.convergence.names(registered))

    assert names() == ()
    assert names(words, RegisteredName("new", {"candidate": "1"})) == ("words",)
    assert names(words, eclip) == ("words", "eclip")
    cluster.champion = ONE
    cluster.steps()
    demoted = RegisteredName("eclip", {})
    assert names(words, demoted) == ("words", "eclip")
    assert names(words) == ("words", "eclip"), "it was deleted"
    cluster.champion = Missing("none is champion")
    cluster.steps()
    assert cluster.served == {"eclip/1"}
    assert cluster.convergence.trouble == {"eclip": "none is champion"}
    cluster.replicas = [{"eclip": ONE, "eclip@challenger": TWO}]
    cluster.convergence.serving = {}
    assert names(words, demoted) == ("words", "eclip"), "a poller that was restarted learns it from the replicas"


def test_a_version_without_the_tag_embeds_photos() -> None:
    assert capabilities_of({"capabilities": '["embed_text", "write_text"]'}) == ("embed_text", "write_text")
    for tags in ({}, {"capabilities": "?"}, {"capabilities": "7"}):
        assert capabilities_of(tags) == ("embed_image",)
