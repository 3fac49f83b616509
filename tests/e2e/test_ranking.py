"""A ranker trained as a job, promoted and served beside the model it started from; a shelf in a real browser."""

from __future__ import annotations

import base64
import re

import httpx
import mlflow
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Platform, keep_picture

TOPIC = {"name": "가을 니트 모음", "desc": "", "kwds": ["warm", "knit"]}


@pytest.fixture
def asked(demo_url: str, ranker: int) -> dict:
    """What the page asks: the products nearest to the words, ranked."""
    words = {"text": "가을 니트 모음 warm knit", "model": "clik", "k": 200}
    found = httpx.post(f"{demo_url}/v1/similar", json=words, timeout=60).json()["data"]
    products = [product["product_id"] for product in found]
    images = [{"type": "product", "product_id": product} for product in products]
    answer = httpx.post(f"{demo_url}/v1/rank", json={"topic": TOPIC, "images": images, "top_n": 60}, timeout=60).json()
    return {**answer, "products": [products[result["index"]] for result in answer["results"]]}


def test_the_shelf_is_ranked_by_fit_and_attraction(asked: dict, ranker: int) -> None:
    assert asked["model"] == f"clik/{ranker}"
    scores = np.array([result["relevance_score"] for result in asked["results"]])
    assert len(scores) == 60
    assert (np.diff(scores) <= 0).all()
    parts = np.array([[result["fit"], result["attraction"]] for result in asked["results"]])
    np.testing.assert_allclose(parts.sum(1), scores, atol=1e-6)
    assert asked["failed"] == []


def test_a_photo_and_its_product_score_alike(demo_url: str, ranker: int) -> None:
    product = httpx.get(f"{demo_url}/v1/products?limit=1", timeout=30).json()["data"][0]
    photo = httpx.get(demo_url + product["image"], timeout=30)
    url = f"data:{photo.headers['content-type']};base64,{base64.b64encode(photo.content).decode()}"
    images = [{"type": "product", "product_id": product["product_id"]}, url]
    answer = httpx.post(f"{demo_url}/v1/rank", json={"topic": TOPIC, "images": images}, timeout=60).json()
    first, second = (result["relevance_score"] for result in answer["results"])
    assert first == pytest.approx(second, abs=1e-4)


def test_the_run_says_what_it_began_from_and_its_figures(platform: Platform, champion: int, ranker: int) -> None:
    client = mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)
    run = client.get_run(client.get_model_version("clik", str(ranker)).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["start_from"] == f"eclip/{champion}"
    assert {"test/ranking/ndcg_at_10", "test/topic_to_image/mrr"} <= run.data.metrics.keys()


def test_a_merchandiser_writes_a_topic_and_sees_a_shelf(page: Page, demo_url: str, asked: dict) -> None:
    page.get_by_test_id("to-shelf").click()
    page.get_by_test_id("topic-name").fill(TOPIC["name"])
    page.get_by_test_id("topic-kwds").fill("warm, knit")
    page.get_by_test_id("topic-rank").click()
    cards = page.get_by_test_id("shelf-grid").get_by_test_id("card")
    expect(page.get_by_test_id("shelf-status")).to_contain_text(f"by {asked['model']}")
    shown = cards.evaluate_all("cards => cards.map(c => c.dataset.productId)")
    assert shown == asked["products"]
    first = asked["results"][0]
    expect(cards.first.get_by_test_id("reason-fit")).to_contain_text(f"{first['fit']:+.3f}")
    expect(cards.first.get_by_test_id("reason-attraction")).to_contain_text(f"{first['attraction']:+.3f}")
    expect(cards.first).to_contain_text(re.compile("^1"))
    keep_picture(page, "shelf")
    cards.nth(2).click()
    expect(page.get_by_test_id("detail").locator("h1")).to_be_visible()
    page.get_by_test_id("back").click()
    expect(page.get_by_test_id("shelf-grid").get_by_test_id("card")).to_have_count(60)


def test_a_shelf_that_cannot_be_filled_says_why(page: Page, demo_url: str, ranker: int) -> None:
    page.goto(f"{demo_url}/#/shelf?name=x&category=no/such/place")
    expect(page.get_by_test_id("shelf-status")).to_have_class(re.compile("bad"))
    expect(page.get_by_test_id("shelf-status")).to_contain_text("no/such/place")
