"""The endpoints of a running cluster, as clients and attackers use them."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from shoplens.datasets.format import Dataset
from shoplens.search.rules import Rules
from tests.e2e.hostile import Attack, attacks, data_uri, photo
from tests.search.test_product_identity import products as identified

TIMEOUT = httpx.Timeout(120)


@pytest.fixture
def http(demo_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo_url, timeout=TIMEOUT) as client:
        yield client


def embed(http: httpx.Client, items: Any) -> np.ndarray:
    answer = http.post("/v1/embeddings", json={"model": "eclip", "input": items})
    assert answer.status_code == 200, answer.text
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


def image_item(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(data)}}


def similar(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    answer = http.post("/v1/similar", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def reason(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["code"]
    assert len(answer.text) < 3000
    return error


def test_health_and_model_version(http: httpx.Client) -> None:
    health = http.get("/healthz")
    assert health.status_code == 200
    assert health.json()["status"] == "ok"
    version = health.json()["model"]
    assert version.startswith("eclip/")
    for answer in (
        http.post("/v1/embeddings", json={"model": "eclip", "input": "x"}),
        http.post("/v1/embeddings", json={"model": "eclip@champion", "input": "x"}),
        http.post("/v1/embeddings", json={"model": version, "input": "x"}),
        http.post("/v1/similar", json={"text": "x", "k": 1}),
        http.post("/v1/attributes", json={"text": "x"}),
        http.get("/v1/products?limit=1"),
        http.get("/v1/categories"),
    ):
        assert answer.status_code == 200
        assert answer.headers["X-Model-Version"] == answer.json()["model"] == version
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    rows = http.get("/v1/models").json()["data"]
    active = [row["id"] for row in rows if row["active"]]
    assert active == [served for served in health.json()["models"].values() if served is not None]
    [champion] = [row for row in rows if row["id"] == version]
    assert champion["capabilities"] == ["embed_image", "embed_text", "extract_attributes"]


def test_embeddings_are_unit_vectors_in_the_order_asked(http: httpx.Client) -> None:
    product = http.get("/v1/products?limit=1").json()["data"][0]
    shown = http.get(product["image"]).content
    items = [
        "red dress",
        image_item(shown),
        {"type": "product", "product_id": product["product_id"]},
        "빨간 원피스",
    ]
    together = embed(http, items)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-4)
    for i, item in enumerate(items):
        assert float(embed(http, [item])[0] @ together[i]) > 0.9999


def test_multipart_gives_what_json_gives(http: httpx.Client) -> None:
    data = photo(seed=5)
    files = [
        ("input", (None, "red dress")),
        ("image", ("a.jpg", data, "image/jpeg")),
        ("input", (None, "청바지")),
        ("model", (None, "eclip")),
    ]
    answer = http.post("/v1/embeddings", files=files)
    assert answer.status_code == 200, answer.text
    rows = np.array([row["embedding"] for row in answer.json()["data"]], np.float32)
    assert np.allclose(rows, embed(http, ["red dress", image_item(data), "청바지"]), atol=1e-5)


def test_openai_client(http: httpx.Client, demo_url: str) -> None:
    client = openai.OpenAI(base_url=f"{demo_url}/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model="eclip", input=["red dress", "jeans"])
    assert answer.model.startswith("eclip/")
    assert answer.usage.total_tokens > 2
    assert np.allclose([row.embedding for row in answer.data], embed(http, ["red dress", "jeans"]), atol=1e-5)
    floats = client.embeddings.create(model="eclip@champion", input="red dress", encoding_format="float")
    assert np.allclose(floats.data[0].embedding, answer.data[0].embedding, atol=1e-5)
    assert any(model.id == answer.model for model in client.models.list())
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        client.embeddings.create(model="no-such-model", input="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="eclip", input=[[1, 2], [3]])  # token ids
    assert caught.value.param == "input" and "tokens are not taken" in str(caught.value)


RAW = {"in_stock": False, "cheapest": False}
"""No rule of the shop."""


def products_of(shop: Path) -> dict[str, Any]:
    """By id, something equal for listings of one product; a listing that is alone, its id."""
    listed = Dataset(shop).products
    told = [listed[name].to_pylist() for name in ("catalog_id", "attributes")]
    ids = listed["product_id"].to_pylist()
    return {own: product or own for own, product in zip(ids, identified(*told, Rules().identifiers), strict=True)}


def test_similar_honours_every_filter(http: httpx.Client, shop: Path) -> None:
    product_of = products_of(shop)
    products = http.get("/v1/products?limit=200").json()["data"]
    listings = Counter((p["catalog_id"], p["category_id"]) for p in products if p["catalog_id"])
    query = next(p for p in products if listings[p["catalog_id"], p["category_id"]] > 1)
    own = query["product_id"]
    rows = http.get("/v1/categories").json()["data"]
    by_id = {row["id"]: row for row in rows}
    count = {tuple(row["path"]): row["n_products"] for row in rows}

    nearest = similar(http, product_id=own, k=50, **RAW)
    everything = similar(http, product_id=own, k=1000, **RAW)
    root = tuple(query["category_path"][:1])
    of_root = [p for p in everything if tuple(p["category_path"][:1]) == root]
    assert len(of_root) == min(1000, count[root] - 1), "whatever is alike elsewhere, the own section is reached"
    assert [p["product_id"] for p in everything[:50]] == [p["product_id"] for p in nearest]
    assert own not in [p["product_id"] for p in everything]
    placed = [(p["ring"], -p["score"]) for p in everything]
    assert placed == sorted(placed)
    leaf = [p["category_id"] == query["category_id"] for p in everything]
    assert leaf == [p["ring"] == 0 for p in everything]
    assert sum(leaf) == min(1000, by_id[query["category_id"]]["n_products"] - 1)
    assert any(product_of[p["product_id"]] == product_of[own] for p in everything)
    others = similar(http, product_id=own, k=1000, exclude_catalog=True, **RAW)
    expected = [p["product_id"] for p in everything if product_of[p["product_id"]] != product_of[own]]
    assert [p["product_id"] for p in others][: len(expected)] == expected

    ruled = similar(http, product_id=own, k=1000)
    assert max(Counter(product_of[p["product_id"]] for p in ruled).values()) == 1
    assert all(p["stock"] != 0 for p in ruled)
    for shown in ruled:
        same = [p for p in everything if product_of[p["product_id"]] == product_of[shown["product_id"]]]
        rivals = [p for p in same if p["stock"] != 0]
        assert all(rival["price"] is None or shown["price"] <= rival["price"] for rival in rivals)
        assert len(rivals) < 2 or "cheapest" in shown["rules"]

    chosen = max((row for row in rows if row["level"] > 1), key=lambda row: row["n_products"])
    within = similar(http, text="x", k=1000, category=chosen["id"], **RAW)
    assert within
    assert all(by_id[p["category_id"]]["path"][: chosen["level"]] == chosen["path"] for p in within)

    prices = sorted(p["price"] for p in products if p["price"] is not None)
    low, high = prices[len(prices) // 4], prices[len(prices) // 2]
    priced = similar(http, text="x", k=1000, price={"min": low, "max": high})
    assert priced
    assert all(low <= p["price"] <= high for p in priced)
    both = similar(http, text="x", k=1000, price={"min": low}, category=chosen["id"], **RAW)
    by_price = {p["product_id"]: p["score"] for p in within if p["price"] is not None and p["price"] >= low}
    assert {p["product_id"]: pytest.approx(p["score"], abs=1e-4) for p in both} == by_price

    colour = http.get(f"/v1/products/{own}").json()["attributes"]["colour"][0]
    coloured = similar(http, product_id=own, k=5, attributes={"colour": colour})
    assert coloured
    for product in coloured:
        assert colour in http.get(f"/v1/products/{product['product_id']}").json()["attributes"]["colour"]


def test_similar_by_photo_finds_its_product(http: httpx.Client) -> None:
    products = http.get("/v1/products?limit=20").json()["data"]
    found = 0
    for product in products:
        shown = http.get(product["image"]).content
        nearest = similar(http, image=data_uri(shown), k=20, **RAW)
        found += product["product_id"] in [p["product_id"] for p in nearest]
    assert found > len(products) / 2


def test_products_pages_categories_and_photos(http: httpx.Client) -> None:
    first = http.get("/v1/products?limit=30").json()
    second = http.get("/v1/products?limit=30&offset=30").json()
    ids = [p["product_id"] for p in first["data"] + second["data"]]
    assert len(set(ids)) == min(60, first["total"])
    rows = http.get("/v1/categories").json()["data"]
    roots = [row for row in rows if row["parent_id"] is None]
    assert sum(row["n_products"] for row in roots) <= first["total"]
    assert http.get("/v1/products", params={"category": roots[0]["id"]}).json()["total"] == roots[0]["n_products"]
    detail = http.get(f"/v1/products/{ids[0]}").json()
    assert detail["title"] == first["data"][0]["title"]
    assert detail["images"][0] == first["data"][0]["image"]
    picture = http.get(detail["images"][0])
    assert picture.headers["Content-Type"].startswith("image/")
    assert "immutable" in picture.headers["Cache-Control"]
    again = http.get(detail["images"][0], headers={"If-None-Match": picture.headers["ETag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_attributes_are_found_in_photos_and_titles(http: httpx.Client) -> None:
    """Colours of the shop's own products, far above the share of the most frequent one."""
    shop = http.get("/v1/products?limit=60").json()["data"]
    colours = [http.get(f"/v1/products/{row['product_id']}").json()["attributes"]["colour"][0] for row in shop]
    right, answered = 0, []
    for row, colour in zip(shop, colours, strict=True):
        body = {"image": data_uri(http.get(row["image"]).content), "text": row["title"], "category": row["category_id"]}
        answer = http.post("/v1/attributes", json=body | {"keys": ["colour"]})
        assert answer.status_code == 200, answer.text
        [found] = answer.json()["data"]
        assert (answer.json()["modality"], found["source"], found["calibrated"]) == ("fused", "head", True)
        right += found["value"] == colour
        if found["answered"]:
            answered.append(found["value"] == colour)
    assert right / len(shop) > 2 * Counter(colours).most_common(1)[0][1] / len(shop)
    assert not answered or np.mean(answered) > 0.6
    zero_shot = http.post("/v1/attributes", json={"text": "x", "keys": {"mood": ["festive", "plain"]}}).json()["data"][
        0
    ]
    assert (zero_shot["source"], zero_shot["calibrated"]) == ("zero_shot", False)


def test_openapi_describes_every_endpoint(http: httpx.Client) -> None:
    description = http.get("/openapi.json").json()
    paths = {
        "/v1/embeddings",
        "/v1/attributes",
        "/v1/rank",
        "/v1/captions",
        "/v1/similar",
        "/v1/products",
        "/v1/categories",
        "/v1/models",
        "/healthz",
    }
    assert paths <= set(description["paths"])
    schemas = description["components"]["schemas"]
    for reference in _references(description):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    assert http.get("/docs").status_code == 200
    page = http.get("/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def _references(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        own = {tree["$ref"]} if isinstance(tree.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in tree.values()))
    if isinstance(tree, list):
        return set().union(*(_references(value) for value in tree))
    return set()


def test_one_truncated_photo_amid_a_hundred_good_requests(http: httpx.Client, demo_url: str) -> None:
    photos = [photo(seed=seed) for seed in range(100)]
    bad = photo(seed=1000, side=200)
    bodies = [{"model": "eclip", "input": [image_item(data)]} for data in photos]
    bodies.insert(50, {"model": "eclip", "input": [image_item(bad[: len(bad) // 2])]})

    async def all_at_once() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=len(bodies))
        async with httpx.AsyncClient(base_url=demo_url, timeout=TIMEOUT, limits=limits) as client:
            return await asyncio.gather(*(client.post("/v1/embeddings", json=body) for body in bodies))

    answers = asyncio.run(all_at_once())
    failed = [i for i, answer in enumerate(answers) if answer.status_code != 200]
    assert failed == [50]
    assert answers[50].status_code == 422
    assert reason(answers[50])["code"] == "image_truncated"
    assert reason(answers[50])["param"] == "input[0]"
    good = [answer for i, answer in enumerate(answers) if i != 50]
    rows = np.array([answer.json()["data"][0]["embedding"] for answer in good], np.float32)
    alone = embed(http, [image_item(photos[7])])
    assert float(rows[7] @ alone[0]) > 0.9999
    assert http.get("/healthz").status_code == 200
    assert embed(http, [image_item(photos[3])]).shape == alone.shape


def test_neighbours_in_a_batch_do_not_change_an_answer(http: httpx.Client, demo_url: str) -> None:
    texts = [f"상품 {'very ' * (i % 17)}long title {i}" for i in range(64)]
    alone = np.concatenate([embed(http, [text]) for text in texts[::8]])

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=demo_url, timeout=TIMEOUT) as client:
            requests = (client.post("/v1/embeddings", json={"model": "eclip", "input": text}) for text in texts)
            return await asyncio.gather(*requests)

    rows = [answer.json()["data"][0]["embedding"] for answer in asyncio.run(all_at_once())]
    assert np.allclose(np.array(rows, np.float32)[::8], alone, atol=1e-4)
    assert np.allclose(embed(http, texts)[::8], alone, atol=1e-4)


def test_hostile_requests_get_a_4xx_with_a_reason(http: httpx.Client, demo_url: str) -> None:
    every = list(attacks())
    assert len(every) >= 200
    before = embed(http, ["red dress", image_item(photo())])

    async def one(client: httpx.AsyncClient, slots: asyncio.Semaphore, attack: Attack) -> str | None:
        async with slots:
            url = httpx.URL(demo_url).copy_with(raw_path=attack.path.encode())
            answer = await client.request(attack.method, url, content=attack.content, headers=attack.headers)
        if not 400 <= answer.status_code < 500:
            return f"{attack.name}: {answer.status_code} {answer.text[:200]}"
        try:
            reason(answer)
        except (AssertionError, KeyError, json.JSONDecodeError):
            return f"{attack.name}: {answer.status_code} gives no reason: {answer.text[:200]}"
        return None

    async def all_of_them() -> list[str | None]:
        slots = asyncio.Semaphore(8)
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            return await asyncio.gather(*(one(client, slots, attack) for attack in every))

    wrong = [complaint for complaint in asyncio.run(all_of_them()) if complaint]
    assert not wrong, "\n".join(wrong)
    assert http.get("/healthz").status_code == 200
    assert np.allclose(embed(http, ["red dress", image_item(photo())]), before, atol=1e-5)


def test_base64_is_little_endian_float32(http: httpx.Client) -> None:
    body = {"model": "eclip", "input": "jeans", "encoding_format": "base64"}
    packed = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), embed(http, "jeans")[0], atol=1e-6)
