"""Which arm a user is answered by, and when nobody is in one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from serve_apps.release import Release
from serve_apps.settings import Experiment, Settings
from shoplens.config import ConfigError, validate
from shoplens.datasets.format import Dataset
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.nn.similar import HeadConfig, SimilarConfig, SimilarEncoder
from shoplens.nn.towers import ImageTowerConfig
from shoplens.recipes.similar import SimilarEmbedder
from shoplens.registry import versions as packages
from shoplens.search.index import Index
from shoplens.search.items import items
from tests.serve_apps.conftest import make_index
from tests.serve_apps.test_api import Service, error, running

__all__ = ["running"]

ARMS = [
    {"name": "champion", "share": 0.7, "model": "eclip@champion"},
    {"name": "challenger", "share": 0.3, "model": "eclip@challenger"},
]
EXPERIMENT = {"name": "similar-1", "salt": "s1", "arms": ARMS}
USERS = [f"user-{n}" for n in range(300)]


def with_arms(*arms: dict[str, Any]) -> dict[str, Any]:
    return {**EXPERIMENT, "arms": list(arms)}


@pytest.fixture(scope="module")
def releases(package: Path, shop: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    """Versions 1 and 2, each with an index."""
    root = tmp_path_factory.mktemp("indexes")
    return [Release("eclip", f"eclip/{n}", str(make_index(root / str(n), package, shop, n)), "a") for n in (1, 2)]


async def put(service: Service, reference: str, release: Release) -> None:
    """What the rollout does for the model of an arm."""
    await service.encoder.prepare(release.version)
    await service.gateway.prepare(release)
    service.encoder.activate(reference, release.version)
    service.gateway.activate(release, reference)


async def similar(service: Service, **fields: Any) -> tuple[str, dict[str, str] | None]:
    answer = await service.http.post("/v1/similar", json={"product_id": "p4", "k": 2, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Model-Version"] == answer.json()["model"]
    return answer.json()["model"], answer.json()["experiment"]


def test_users_are_answered_by_the_model_of_their_arm(running: Any, releases: list[Release]) -> None:
    one, two = releases
    versions = {"champion": "eclip/1", "challenger": "eclip/2"}
    config = validate(Experiment, EXPERIMENT, "test")

    async def body(service: Service) -> None:
        await service.promote(one)
        await put(service, "eclip@challenger", two)
        counts: Counter[str] = Counter()
        for user in USERS:
            arm = config.arm(user)
            assert await similar(service, user=user) == (versions[arm], {"name": "similar-1", "arm": arm})
            counts[arm] += 1
        assert stats.binomtest(counts["challenger"], len(USERS), 0.3).pvalue > 1e-3
        user = next(user for user in USERS if config.arm(user) == "challenger")
        assert {(await similar(service, user=user))[0] for _ in range(5)} == {"eclip/2"}
        assert await similar(service, text="a mug", product_id=None, user=user) == (
            "eclip/2",
            {"name": "similar-1", "arm": "challenger"},
        )
        assert await similar(service) == ("eclip/1", None)
        for model, version in (("eclip", "eclip/1"), ("eclip@challenger", "eclip/2"), ("eclip/1", "eclip/1")):
            assert await similar(service, user=user, model=model) == (version, None)
        assert service.registry.looked_up == [], "both are kept ready"
        for bad in ("", "x" * 257, "a\x00b", 7):
            refused = await service.http.post("/v1/similar", json={"product_id": "p4", "user": bad})
            assert error(refused) == (400, "invalid_value")

    running(body, search=True, experiment=EXPERIMENT, versions_kept=1)


def test_while_an_arm_cannot_answer_nobody_is_in_one(running: Any, releases: list[Release]) -> None:
    async def body(service: Service) -> None:
        waits = (await service.http.get("/v1/experiment")).json()
        assert (waits["name"], waits["running"]) == ("similar-1", False)
        assert error(await service.http.post("/v1/similar", json={"product_id": "p4", "user": "u"})) == (
            503,
            "no_champion",
        )
        await service.promote(releases[0])
        for user in USERS[:20]:
            assert await similar(service, user=user) == ("eclip/1", None)
        await put(service, "eclip@challenger", releases[1])
        assert (await service.http.get("/v1/experiment")).json() == {
            "object": "experiment",
            "name": "similar-1",
            "running": True,
            "arms": [
                {**ARMS[0], "version": "eclip/1"},
                {**ARMS[1], "version": "eclip/2"},
                {"name": "later", "share": 0, "model": "eclip/3", "version": None},
            ],
        }
        assert {(await similar(service, user=user))[0] for user in USERS[:20]} == {"eclip/1", "eclip/2"}

    later = {"name": "later", "share": 0, "model": "eclip/3"}
    running(body, search=True, experiment=with_arms(*ARMS, later))


def test_an_arm_that_reads_photos_alone_keeps_texts_out_of_the_experiment(
    running: Any, package: Path, shop: Dataset, releases: list[Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SimilarConfig(dim=16, image=ImageTowerConfig(name="test_efficientnet"), head=HeadConfig(dim=8))
    preprocessing = Preprocessing(size=32)
    embedder = SimilarEmbedder("eclip", config, preprocessing, SimilarEncoder(config, preprocessing))
    embedder.save(tmp_path / "photos", "# test", {})
    vectors = np.random.default_rng(0).standard_normal((shop.images.num_rows, 8)).astype(np.float32)
    about = {"model": "eclip", "version": 2, "dataset_path": shop.path, "dataset_digest": shop.digest}
    rows = items(shop, np.arange(len(vectors)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    Index.build(tmp_path / "index", unit, rows, shop.categories, about)
    monkeypatch.setattr(packages, "download", lambda found, _: tmp_path / "photos" if found == "eclip/2" else package)

    async def body(service: Service) -> None:
        await service.promote(releases[0])
        await put(service, "eclip@challenger", Release("eclip", "eclip/2", str(tmp_path / "index"), "a"))
        beside = [await similar(service, user=user) for user in USERS[:20]]
        assert {version for version, _ in beside} == {"eclip/1", "eclip/2"}
        searched = [await similar(service, user=user, text="a mug", product_id=None) for user in USERS[:20]]
        assert searched == [("eclip/1", None)] * 20

    running(body, search=True, experiment=EXPERIMENT)


def test_without_an_experiment_there_is_none(running: Any, releases: list[Release]) -> None:
    async def body(service: Service) -> None:
        await service.promote(releases[0])
        assert await similar(service, user="u") == ("eclip/1", None)
        assert (await service.http.get("/v1/experiment")).json() == {
            "object": "experiment",
            "name": None,
            "running": False,
            "arms": [],
        }

    running(body, search=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"experiment": with_arms(ARMS[0], {**ARMS[1], "share": 0.2})},
            "experiment: the shares must sum to 1, not to 0.9",
        ),
        (
            {
                "models": ["eclip"],
                "experiment": with_arms(ARMS[0], {**ARMS[1], "model": "eclipse@challenger"}),
            },
            "the arm 'challenger' is answered by 'eclipse@challenger', but 'eclipse' is not among `models:` (eclip)",
        ),
        ({"experiment": with_arms(ARMS[0], {**ARMS[1], "model": "@"})}, "experiment.arms.1.model: "),
        ({"experiment": with_arms(ARMS[0], {**ARMS[1], "name": "champion"})}, "two arms have one name: champion"),
        ({"experiment": {**EXPERIMENT, "sallt": "x"}}, "experiment.sallt: unknown key; did you mean salt?"),
        ({"experiment": {"name": "e", "arms": ARMS}}, "experiment.salt: Field required"),
        ({"experiment": EXPERIMENT, "search": False}, "it needs `search: true`"),
        ({"events": "log"}, "events: the event log needs a folder of a file system, by its absolute path"),
        ({"events": "s3://shop/events"}, "by its absolute path"),
    ],
)
def test_an_experiment_that_cannot_run_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(Settings, settings, "the arguments")
    assert said in str(refused.value)


def test_replicas_keep_ready_what_answers_arms() -> None:
    later = {"name": "later", "share": 0, "model": "eclip/9"}
    settings = Settings.model_validate({"models": ["eclip", "clik"], "experiment": with_arms(*ARMS, later)})
    assert settings.followed == ("eclip", "clik", "eclip@challenger")
    assert Settings.model_validate({"experiment": with_arms(*ARMS)}).followed == ("eclip", "eclip@challenger")
    assert Settings().followed == ()
