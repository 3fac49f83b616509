"""Similar products over HTTP: rings and rules, deltas that arrive while it serves, requests that cannot be answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from serve_apps.release import Release
from serve_apps.rollout import Convergence
from shoplens.datasets.format import Dataset
from shoplens.schema import Identifier
from shoplens.search import deltas
from shoplens.search.deltas import Changes
from shoplens.search.index import Index
from shoplens.search.items import ITEMS
from tests.serve_apps.conftest import jpeg, make_index
from tests.serve_apps.test_api import Service, error, photo_item, running

__all__ = ["running"]

DRESSES, JEANS, MUGS = ({n for n in range(24) if n // 2 % 3 == kind} for kind in range(3))
"""Numbers of the products that are filed so."""
RAW = {"in_stock": False, "cheapest": False}
"""No rule of the shop."""


@pytest.fixture
def folder(package: Path, shop: Dataset, tmp_path: Path) -> Path:
    return make_index(tmp_path / "index", package, shop, 1)


def product_id(number: int) -> str:
    return "p 0/ä" if number == 0 else f"p{number}"


def release(folder: Path) -> Release:
    return Release("eclip", "eclip/1", str(folder), deltas.stamp(folder))


async def ask(service: Service, **fields: Any) -> httpx.Response:
    return await service.http.post("/v1/similar", json=fields)


async def found(service: Service, **fields: Any) -> list[dict[str, Any]]:
    answer = await ask(service, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def ids(data: list[dict[str, Any]]) -> list[str]:
    return [product["product_id"] for product in data]


def again(index: Index, numbers: list[int], **columns: Any) -> Changes:
    """These products once more, otherwise filed."""
    table = index.items
    rows = [row for row, there in enumerate(table["product_id"].to_pylist()) if there in map(product_id, numbers)]
    items = [{**row, **columns} for row in table.take(pa.array(rows)).to_pylist()]
    return Changes(items=pa.Table.from_pylist(items, ITEMS), vectors=np.asarray(index.vectors, np.float32)[rows])


def new(name: str, image_ids: list[str], dim: int = 32, **columns: Any) -> Changes:
    """A product that the dataset does not know."""
    row = {"product_id": name, "catalog_id": "c1", "category_id": "clothing/dresses", "price": 1.0, "sample": None}
    items = [{**row, **columns, "image_id": image_id} for image_id in image_ids]
    return Changes(items=pa.Table.from_pylist(items, ITEMS), vectors=np.full((len(items), dim), 0.1, np.float32))


def test_the_own_category_comes_first_then_its_siblings(running: Any, folder: Path) -> None:
    index = Index.load(folder)
    of_product = index.items["product_id"].to_numpy(zero_copy_only=False)
    vectors = np.asarray(index.vectors, np.float64)

    def nearest(seed: int, among: set[int], k: int) -> list[tuple[str, float]]:
        query = vectors[of_product == product_id(seed)].mean(axis=0)
        query /= np.linalg.norm(query)
        scores = {product_id(n): (vectors[of_product == product_id(n)] @ query).max() for n in among - {seed}}
        return sorted(scores.items(), key=lambda item: -item[1])[:k]

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        for seed, k in ((0, 1000), (7, 9), (7, 3)):
            answer = (await ask(service, product_id=product_id(seed), k=k, **RAW)).json()
            expected = nearest(seed, DRESSES, k)
            within = len(expected)
            expected += nearest(seed, JEANS, k - within)
            assert [(p["product_id"], p["score"]) for p in answer["data"]] == [
                (name, pytest.approx(score, abs=1e-6)) for name, score in expected
            ]
            assert [p["ring"] for p in answer["data"]] == [0] * within + [1] * (len(expected) - within)
            assert {tuple(p["rules"]) for p in answer["data"]} == {()}
        closed = await found(service, product_id="p7", k=1000, widening={"rings": 0}, **RAW)
        assert ids(closed) == [name for name, _ in nearest(7, DRESSES, 1000)]
        open_to_all = await found(service, product_id="p7", k=1000, widening={"margin": 0}, **RAW)
        assert ids(open_to_all) == [name for name, _ in nearest(7, DRESSES | JEANS, 1000)]
        floor = open_to_all[4]["score"]
        high = await found(service, product_id="p7", k=1000, widening={"margin": 0, "floor": floor}, **RAW)
        assert high == open_to_all[:5]
        elsewhere = await found(service, product_id="p7", k=1000, category="kitchen", **RAW)
        assert ids(elsewhere) == [name for name, _ in nearest(7, MUGS, 1000)]
        assert {p["ring"] for p in elsewhere} == {0}
        by_words = await found(service, text="a mug", k=1000, **RAW)
        assert len(by_words) == 24
        assert {p["ring"] for p in by_words} == {0}

    running(body, search=True)


def test_rules_are_applied_and_told(running: Any, folder: Path) -> None:
    index = Index.load(folder)
    deltas.append(folder, again(index, [6, 7, 18], component=5, stock=3))
    deltas.append(folder, Changes(stocks={"p19": 0, "p12": 0, "p13": 4}))
    deltas.append(folder, again(index, [1], attributes=[("color", ["blue", "red"]), ("size", ["S"])]))

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        beside = {"product_id": "p 0/ä", "category": "clothing/dresses"}
        everything = {p["product_id"]: p for p in await found(service, k=50, **beside, **RAW)}
        assert {name: p["stock"] for name, p in everything.items()} == {
            "p1": None,
            "p6": 3,
            "p7": 3,
            "p18": 3,
            "p19": 0,
            "p12": 0,
            "p13": 4,
        }
        told = {p["product_id"]: p["rules"] for p in await found(service, k=50, **beside)}
        assert told == {
            "p1": [],
            "p6": ["in_stock", "cheapest", "shared_photo"],
            "p13": ["in_stock"],
            "p18": ["in_stock", "shared_photo"],
        }
        assert set(ids(await found(service, k=50, exclude_catalog=True, **beside))) == {"p6", "p13", "p18"}
        capped = await found(service, k=50, photo_cap=1, **beside)
        best = max("p6", "p18", key=lambda name: everything[name]["score"])
        assert {p["product_id"]: "capped" in p["rules"] for p in capped} == {"p1": False, "p13": False, best: True}
        blue = await found(service, k=50, attributes={"color": "blue", "size": "S"}, **beside)
        assert [(p["product_id"], p["rules"]) for p in blue] == [("p1", ["attributes"])]
        priced = await found(service, k=50, price={"min": 17, "max": 23}, **beside)
        assert {p["product_id"]: p["rules"] for p in priced} == {
            "p7": ["in_stock", "price"],
            "p13": ["in_stock", "price"],
        }
        assert (await service.http.get("/v1/products/p1")).json()["attributes"] == {
            "color": ["blue", "red"],
            "size": ["S"],
        }

    running(body, search=True)


def test_every_answer_has_a_name_and_says_what_was_searched(running: Any, folder: Path) -> None:
    async def body(service: Service) -> None:
        await service.promote(release(folder))
        names = set()
        for wish in (
            {"text": "x"},
            {"product_id": "p7", "user": "u" * 256},
            {"image": photo_item(jpeg(1))["image_url"]["url"]},
        ):
            answer = await ask(service, **wish)
            told = answer.json()
            assert (told["object"], told["model"]) == ("list", answer.headers["X-Model-Version"])
            assert told["snapshot"] == f"eclip/1@{deltas.load(folder).snapshot}"
            names.add(told["request_id"])
            TypeAdapter(list[Identifier]).validate_python([told["snapshot"], told["request_id"]])
            deltas.append(folder, Changes(stocks={"p1": len(names)}))
            await service.promote(release(folder))
        assert len(names) == 3

    running(body, search=True)


def test_what_a_delta_changes_is_served_without_a_promotion(running: Any, folder: Path) -> None:
    async def body(service: Service) -> None:
        loads: list[Release] = []

        async def prepare(wanted: Release) -> None:
            loads.append(wanted)
            await service.encoder.prepare(wanted.version)
            await service.gateway.prepare(wanted)

        async def look_up(_: str) -> Release:
            return release(folder)

        async def gateways() -> list[dict[str, Release]]:
            return [service.gateway.serving()]

        async def activate(reference: str, wanted: Release) -> None:
            service.gateway.activate(wanted, reference)

        rollout = Convergence("champion", True, look_up, gateways, prepare, activate)
        get = service.http.get
        await rollout.step("eclip")
        before = (await get("/v1/products?limit=100")).json()
        first = (await get("/v1/products/p7")).json()
        assert "p7" in ids(await found(service, product_id="p6", k=50, **RAW))

        deltas.append(folder, Changes(removed=["p7"], prices={"p8": 999.5, "p9": None}, stocks={"p10": 0}))
        deltas.append(folder, again(Index.load(folder), [2], category_id="kitchen/mugs", price=2.5))
        assert (await get("/v1/products?limit=100")).json() == before
        for _ in range(3):
            await rollout.step("eclip")
        assert len(loads) == 2

        after = (await get("/v1/products?limit=100")).json()
        changed = {"p8": {"price": 999.5}, "p9": {"price": None}, "p10": {"stock": 0}} | {
            "p2": {"category_id": "kitchen/mugs", "category_path": ["Kitchen", "Mugs"], "price": 2.5}
        }
        assert after["total"] == 23
        assert after["data"] == [
            {**card, **changed.get(card["product_id"], {})} for card in before["data"] if card["product_id"] != "p7"
        ]
        priced = (await get("/v1/products?price_min=900")).json()
        assert ids(priced["data"]) == ["p8"]
        counts = {row["id"]: row["n_products"] for row in (await get("/v1/categories")).json()["data"]}
        assert counts == {"clothing": 14, "clothing/dresses": 7, "clothing/jeans": 7, "kitchen": 9, "kitchen/mugs": 9}
        for category, count in counts.items():
            assert (await get("/v1/products", params={"category": category})).json()["total"] == count
        [cheap] = await found(service, product_id="p4", k=50, category="kitchen", price={"max": 5})
        assert cheap["product_id"] == "p2"
        assert "p7" not in ids(await found(service, product_id="p6", k=50, **RAW))
        assert error(await ask(service, product_id="p7")) == (404, "product_not_found")
        assert (await get("/v1/products/p7")).status_code == 404
        seen = [(await get(url)).status_code for url in first["images"]]
        assert seen == [200, 200]  # the page that was open when it was removed

    running(body, search=True)


def test_a_product_without_a_photo_in_the_dataset_is_not_offered(running: Any, folder: Path) -> None:
    deltas.append(folder, new("strange", ["s1", "s2"]))
    deltas.append(folder, new("far", ["s3"], sample=10**12))
    deltas.append(folder, Changes(removed=["p1"]))
    deltas.append(folder, new("thief", ["0001-0", "0001-1"], sample=2))

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        listed = ids((await service.http.get("/v1/products?limit=100")).json()["data"])
        assert listed == [product_id(n) for n in range(24) if n != 1]
        rows = (await service.http.get("/v1/categories")).json()["data"]
        assert {row["id"]: row["n_products"] for row in rows}["clothing/dresses"] == 7
        # the cheapest of catalog c1 is one that cannot be shown, and must not hide the others
        assert "p2" in ids(await found(service, text="x", k=100))
        assert set(ids(await found(service, text="x", k=100, **RAW))) == set(listed)
        for name in ("p1", "strange", "far", "thief"):
            assert error(await ask(service, product_id=name)) == (404, "product_not_found")
            assert (await service.http.get(f"/v1/products/{name}")).status_code == 404
        assert (await service.http.get("/v1/images/s1")).status_code == 404
        assert (await service.http.get("/v1/images/0001-0")).status_code == 404

    running(body, search=True)


@pytest.mark.parametrize(
    ("settings", "shown"), [({}, {"p2"}), ({"same_product": {"identifiers": [["ean"]]}}, {"p2", "p8"})]
)
def test_listings_without_a_catalog_are_one_product_by_the_makers_number(
    running: Any, folder: Path, settings: dict[str, Any], shown: set[str]
) -> None:
    """Which attributes name a product is the shop's to say."""
    for number, code, price in ((2, "LG-1092", 3.0), (8, "lg 1092", 5.0)):
        attributes = [("Brand", ["Ahn"]), ("MPN", [code])]
        deltas.append(folder, again(Index.load(folder), [number], catalog_id=None, attributes=attributes, price=price))

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        beside = ids(await found(service, product_id="p7", k=1000, in_stock=False))
        assert {"p2", "p8"} & {*beside} == shown

    running(body, search=True, **settings)


def test_an_index_whose_products_were_all_removed_answers_with_nothing(running: Any, folder: Path) -> None:
    deltas.append(folder, Changes(removed=[product_id(n) for n in range(24)]))

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        assert (await service.http.get("/v1/products")).json()["total"] == 0
        assert await found(service, text="x") == []

    running(body, search=True)


def test_a_photo_is_served_while_one_shop_of_the_dataset_shows_it(
    running: Any, package: Path, shop: Dataset, tmp_path: Path
) -> None:
    whole, less = (make_index(tmp_path / f"index {n}", package, shop, n) for n in (1, 2))
    deltas.append(less, Changes(removed=["p5"]))

    async def body(service: Service) -> None:
        await service.promote(release(whole))
        url = (await service.http.get("/v1/products/p5")).json()["image"]
        await service.promote(Release("eclip", "eclip/2", str(less), "a"))
        assert (await service.http.get("/v1/products/p5")).status_code == 404
        assert (await service.http.get(url)).content == jpeg(10)

    running(body, search=True)


PRICES = st.none() | st.sampled_from([0.0, 10.0, 15.0, 15.5, 16.0, 22.0, 33.0, 1e9]) | st.floats(0, 50)


def test_no_answer_breaks_the_price_range_or_leaves_out_what_is_in_it(running: Any, folder: Path) -> None:
    changes = {"p4": 15.5, "p5": None, "p6": 0.0, "p23": 1e9}
    deltas.append(folder, Changes(prices=changes))
    price: dict[str, float | None] = {product_id(n): None if n == 3 else 10.0 + n for n in range(24)} | changes

    def check(asking: Callable[..., list[dict[str, Any]]]) -> None:
        @settings(max_examples=60, deadline=None)
        @given(
            low=PRICES,
            high=PRICES,
            query=st.sampled_from([{"text": "x"}, {"product_id": "p4"}, {"product_id": "p5", "category": "clothing"}]),
            k=st.sampled_from([1, 5, 1000]),
            cheapest=st.booleans(),
        )
        def holds(low: float | None, high: float | None, query: dict[str, str], k: int, cheapest: bool) -> None:
            if low is not None and high is not None and low > high:
                low, high = high, low
            data = asking(**query, k=k, cheapest=cheapest, price={"min": low, "max": high})
            bounded = low is not None or high is not None
            fit = {
                name
                for name, value in price.items()
                if not bounded or (value is not None and (low or 0) <= value <= (high if high is not None else 1e300))
            }
            assert {p["product_id"] for p in data} <= fit
            assert all(p["price"] == price[p["product_id"]] for p in data)
            assert all(("price" in p["rules"]) == bounded for p in data)
            if "text" in query and not cheapest:
                assert len(data) == min(k, len(fit))

        holds()

    async def body(service: Service) -> None:
        await service.promote(release(folder))
        loop = asyncio.get_running_loop()

        def asking(**fields: Any) -> list[dict[str, Any]]:
            return asyncio.run_coroutine_threadsafe(found(service, **fields), loop).result(60)

        await asyncio.to_thread(check, asking)

    running(body, search=True)


def test_the_answer_is_described(running: Any, folder: Path) -> None:
    async def body(service: Service) -> None:
        await service.promote(release(folder))
        schemas = (await service.http.get("/openapi.json")).json()["components"]["schemas"]
        answer = (await ask(service, product_id="p7")).json()
        assert set(schemas["SimilarAnswer"]["properties"]) == set(answer)
        assert set(schemas["SimilarProduct"]["properties"]) == set(answer["data"][0])
        assert set(schemas["Widening"]["properties"]) == {"rings", "margin", "floor"}

    running(body, search=True)
