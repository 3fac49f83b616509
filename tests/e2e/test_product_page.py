"""The product page as a merchandiser judges by it: why a product stands there, two models side by side, thumbs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import httpx
import mlflow
import pytest
from playwright.sync_api import Page, expect

from shoplens.search import deltas
from shoplens.search.deltas import Changes
from tests.e2e.conftest import Platform, keep_picture

K = 24
RIVAL = "clik@champion"
POLLED_S = 60


def ask(demo_url: str, product_id: str, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(f"{demo_url}/v1/similar", json={"product_id": product_id, "k": K, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: dict[str, Any]) -> list[str]:
    return [product["product_id"] for product in answer["data"]]


def open_product(page: Page, demo_url: str, product_id: str, query: str = "") -> None:
    page.goto(f"{demo_url}/#/product/{quote(product_id, safe='')}{query}")
    expect(page.get_by_test_id("detail").locator("h1")).to_be_visible()
    expect(page.get_by_test_id("similar-grid")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_test_id("similar-grid").get_by_test_id("hit").first).to_be_visible()


def hits(page: Page, name: str = "similar") -> dict[str, dict[str, Any]]:
    """Badges and mark of each product of a list, by id, in the order shown."""
    expect(page.get_by_test_id(f"{name}-grid")).to_have_attribute("aria-busy", "false")
    rows = page.get_by_test_id(f"{name}-grid").get_by_test_id("hit")
    return rows.evaluate_all(
        """hits => Object.fromEntries(hits.map(hit => [hit.dataset.productId, {
            badges: [...hit.querySelectorAll('.badge')].map(badge => badge.dataset.badge),
            mark: hit.querySelector('.mark').textContent,
        }]))"""
    )


def told(product: dict[str, Any]) -> list[str]:
    """The badges that a result of the endpoint deserves."""
    ring = [f"ring-{product['ring']}"] if product["ring"] else []
    return [*ring, *(["sold-out"] if product["stock"] == 0 else []), *product["rules"]]


@pytest.fixture(scope="module")
def seeds(platform: Platform, champion: int) -> list[str]:
    listed = httpx.get(f"{platform.cluster.endpoint}/v1/products?limit=60", timeout=30).json()["data"]
    return [product["product_id"] for product in listed]


@pytest.fixture(scope="module")
def folder(platform: Platform, champion: int) -> str:
    """Where the champion's index lies."""
    client = mlflow.MlflowClient(tracking_uri=platform.cluster.mlflow_uri)
    return client.get_model_version("eclip", str(champion)).tags["index"]


@pytest.fixture
def stocked(demo_url: str, folder: str, seeds: list[str]) -> Iterator[tuple[str, str, str]]:
    """A product whose search widens, and two beside it: the first is sold out, of the second there are four."""
    seed = next(seed for seed in seeds if 0 < sum(found["ring"] > 0 for found in ask(demo_url, seed)["data"]) < K - 2)
    first, second = ask(demo_url, seed)["data"][:2]
    gone, plenty = first["product_id"], second["product_id"]

    def change(stocks: dict[str, int | None]) -> None:
        before = ask(demo_url, seed)["snapshot"]
        deltas.append(folder, Changes(stocks=stocks))
        deadline = time.monotonic() + POLLED_S
        while ask(demo_url, seed)["snapshot"] == before:
            assert time.monotonic() < deadline, "the delta is not served"
            time.sleep(0.5)

    change({gone: 0, plenty: 4})
    yield seed, gone, plenty
    change({gone: first["stock"], plenty: second["stock"]})


def test_badges_tell_the_ring_and_the_rules(page: Page, demo_url: str, stocked: tuple[str, str, str]) -> None:
    seed, gone, plenty = stocked
    answer = ask(demo_url, seed)
    open_product(page, demo_url, seed)
    assert {found: hit["badges"] for found, hit in hits(page).items()} == {
        found["product_id"]: told(found) for found in answer["data"]
    }
    assert list(hits(page)) == ids(answer)
    assert gone not in hits(page)
    rows = page.get_by_test_id("similar-grid").get_by_test_id("hit")
    beside = page.locator(f'[data-testid="hit"][data-product-id="{plenty}"]')
    expect(beside.get_by_test_id("badge").filter(has_text="4 in stock")).to_be_visible()
    widened = next(found for found in answer["data"] if found["ring"] == 1)
    row = rows.nth(ids(answer).index(widened["product_id"]))
    near = row.locator('[data-badge="ring-1"]')
    expect(near).to_have_text(f"Near category: {widened['category_path'][-1]}")
    expect(near).to_have_attribute("title", re.compile("^Ring 1: "))

    page.get_by_test_id("rules").click()
    page.get_by_test_id("rule-sold").check(force=True)
    sold_out = page.locator(f'[data-testid="hit"][data-product-id="{gone}"]')
    expect(sold_out).to_have_class(re.compile("sold-out"))
    expect(page).to_have_url(re.compile(r"\?sold=1$"))
    price = sorted(found["price"] for found in answer["data"])[K // 2]
    page.get_by_test_id("rule-max").fill(str(price))
    page.get_by_test_id("rule-max").press("Enter")
    expect(page.get_by_test_id("rules")).to_have_text("Rules (2)")
    expect(page.locator('[data-badge="price"]').first).to_be_visible()
    cheap = ask(demo_url, seed, in_stock=False, price={"max": price})
    assert {found: hit["badges"] for found, hit in hits(page).items()} == {
        found["product_id"]: told(found) for found in cheap["data"]
    }
    keep_picture(page, "product-rules")
    page.reload()
    expect(page.get_by_test_id("rules")).to_have_text("Rules (2)")
    assert list(hits(page)) == ids(cheap)


@pytest.fixture
def unlike(demo_url: str, ranker: int, seeds: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two models' answers for one product, with some products in both and some not."""
    for seed in seeds:
        own, other = ask(demo_url, seed), ask(demo_url, seed, model=RIVAL)
        if 0 < len(set(ids(own)) & set(ids(other))) < K:
            return {"seed": seed, **own}, other
    raise AssertionError("the two models agree on every product, or on none")


def test_two_models_stand_side_by_side(
    page: Page, demo_url: str, unlike: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    own, other = unlike
    both = set(ids(own)) & set(ids(other))
    k = max(len(own["data"]), len(other["data"]))
    sentence = f"{len(both)} of {k} are in both lists: match rate {int(100 * len(both) / k + 0.5)}%."
    open_product(page, demo_url, own["seed"])
    offered = page.get_by_test_id("compare-with").locator(f'option[value="{other["model"]}"]')
    expect(offered).to_be_attached()
    page.get_by_test_id("compare-with").select_option(RIVAL)
    expect(page.get_by_test_id("overlap")).to_have_text(sentence)
    expect(page).to_have_url(re.compile(rf"\?with={RIVAL}$"))
    for name, here, there in (("similar", own, other), ("compared", other, own)):
        expect(page.get_by_test_id(name).locator("h3")).to_contain_text(here["model"])
        shown = hits(page, name)
        assert list(shown) == ids(here)
        for product_id, hit in shown.items():
            if product_id in both:
                assert re.match(rf"In both, {ids(there).index(product_id) + 1}(st|nd|rd|th) there", hit["mark"])
            else:
                assert hit["mark"] == "Only here"
    expect(page.get_by_test_id("model-version")).to_have_text(own["model"])
    keep_picture(page, "product-compared")
    page.reload()
    expect(page.get_by_test_id("overlap")).to_have_text(sentence)
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    expect(page.get_by_test_id("compared-grid").get_by_test_id("hit").first).to_be_attached()
    keep_picture(page, "product-compared-narrow")


def test_a_model_that_cannot_be_compared_gets_a_sentence(page: Page, demo_url: str, seeds: list[str]) -> None:
    open_product(page, demo_url, seeds[0], "?with=eclip/999")
    expect(page.get_by_test_id("compared").locator(".complaint")).to_contain_text("has no version 999")
    expect(page.get_by_test_id("overlap")).to_contain_text("No comparison: ")
    assert list(hits(page)) == ids(ask(demo_url, seeds[0]))
    page.get_by_test_id("compare-with").select_option("")
    expect(page.get_by_test_id("compared")).to_be_hidden()


def thumb(page: Page, product_id: str, name: str, grid: str = "similar-grid") -> Any:
    row = page.get_by_test_id(grid).locator(f'[data-product-id="{product_id}"]')
    return row.get_by_test_id(f"thumb-{name}")


def test_thumbs_survive_a_reload_and_leave_as_labelled_pairs(
    page: Page, demo_url: str, unlike: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    own, other = unlike
    alike, wrong, odd, regretted = ids(own)[:4]
    theirs = next(product_id for product_id in ids(other) if product_id not in ids(own))
    open_product(page, demo_url, own["seed"], f"?with={RIVAL}")
    expect(page.get_by_test_id("compared-grid").get_by_test_id("hit").first).to_be_visible()
    expect(page.get_by_test_id("judged")).to_be_hidden()
    began = datetime.now(timezone.utc) - timedelta(seconds=1)

    thumb(page, alike, "up").press("Enter")
    thumb(page, wrong, "down").press("Space")
    expect(page.get_by_role("button", name="Not similar", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(thumb(page, wrong, "down")).to_be_focused()
    thumb(page, odd, "down").click()
    page.get_by_test_id("why").filter(visible=True).get_by_text("Other").click()
    page.keyboard.type("  only the <b>ground</b> is alike ")
    keep_picture(page, "product-thumbs")
    page.keyboard.press("Enter")
    thumb(page, regretted, "down").click()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("why").filter(visible=True)).to_have_count(0)
    expect(page.get_by_test_id("detail")).to_be_visible()
    thumb(page, regretted, "down").click()
    thumb(page, theirs, "up", "compared-grid").click()

    page.reload()
    expect(thumb(page, alike, "up")).to_have_attribute("aria-pressed", "true")
    expect(thumb(page, wrong, "down")).to_have_attribute("aria-pressed", "true")
    expect(thumb(page, regretted, "down")).to_have_attribute("aria-pressed", "false")
    row = page.get_by_test_id("similar-grid").locator(f'[data-product-id="{odd}"]')
    expect(row.get_by_test_id("verdict-reason")).to_have_text("only the <b>ground</b> is alike")
    for pair in set(ids(other)) & {alike}:
        expect(thumb(page, pair, "up", "compared-grid")).to_have_attribute("aria-pressed", "true")

    with page.expect_download() as download:
        page.get_by_role("button", name="Export 4 judgements").click()
    assert download.value.suggested_filename == "labelled_pairs.jsonl"
    lines = [json.loads(line) for line in open(download.value.path(), encoding="utf-8")]  # noqa: SIM115

    def line(answer: dict[str, Any], product_id: str, label: str, reason: str | None, note: str | None) -> dict:
        rank = ids(answer).index(product_id) + 1
        kept = {name: answer["data"][rank - 1][name] for name in ("product_id", "ring", "score", "rules")}
        listed = {name: answer[name] for name in ("model", "snapshot", "dataset")}
        judged = {"label": label, "reason": reason, "note": note}
        return {"seed_product_id": own["seed"], "rank": rank, **kept, **listed, **judged}

    times = [datetime.fromisoformat(pair.pop("judged_at").replace("Z", "+00:00")) for pair in lines]
    assert lines == [
        line(own, alike, "similar", None, None),
        line(own, wrong, "not_similar", "wrong_category", None),
        line(own, odd, "not_similar", "other", "only the <b>ground</b> is alike"),
        line(other, theirs, "similar", None, None),
    ]
    assert began < times[0] and times == sorted(times)

    page.get_by_test_id("judged-clear").click()
    page.get_by_test_id("judged-keep").click()
    expect(page.get_by_role("button", name="Export 4 judgements")).to_be_visible()
    page.get_by_test_id("judged-clear").click()
    page.get_by_test_id("judged-delete").click()
    expect(page.get_by_test_id("judged")).to_be_hidden()
    page.reload()
    expect(thumb(page, alike, "up")).to_have_attribute("aria-pressed", "false")


def test_a_full_storage_gets_a_sentence_and_loses_nothing_on_screen(
    page: Page, demo_url: str, seeds: list[str]
) -> None:
    open_product(page, demo_url, seeds[0])
    page.evaluate(
        """() => {
            for (let size = 2 ** 22, n = 0; size >= 1; ) {
                try { localStorage.setItem(`full ${n++}`, "x".repeat(size)); } catch { size = Math.floor(size / 2); }
            }
        }"""
    )
    first = ids(ask(demo_url, seeds[0]))[0]
    thumb(page, first, "up").click()
    expect(page.get_by_test_id("judged-line")).to_contain_text("will not keep 1 judgement")
    expect(thumb(page, first, "up")).to_have_attribute("aria-pressed", "true")
    with page.expect_download() as download:
        page.get_by_test_id("judged-export").click()
    assert json.loads(open(download.value.path(), encoding="utf-8").read())["product_id"] == first  # noqa: SIM115
    page.evaluate("localStorage.clear()")
