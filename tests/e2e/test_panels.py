"""The page over models with other capabilities than the recipes have, in a real browser and without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from serve_apps.api import build
from serve_apps.encoder import Encoder
from serve_apps.gateway import Gateway
from serve_apps.release import Release
from serve_apps.settings import Settings
from shoplens.datasets.format import Dataset
from shoplens.registry import versions as packages
from tests.e2e.conftest import PATIENCE_MS, free_port, keep_picture
from tests.serve_apps.conftest import Local, jpeg, make_index, make_package, make_shop
from tests.serve_apps.test_api import Registry
from tests.serve_apps.tiny import Captioner, Words, index, install, save

Open = Callable[[Sequence[Release]], Page]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_shop(tmp_path_factory.mktemp("shop") / "dataset")


@contextmanager
def served(releases: Sequence[Release], cache: Path) -> Iterator[str]:
    """The application on a free port of its own, with these releases promoted in this order."""
    port, ready, running = free_port(), threading.Event(), {}

    async def main() -> None:
        registry = Registry()
        registry.names = [release.name for release in releases]
        settings = Settings(cache=str(cache))
        encoder, gateway = Encoder.__new__(Encoder), Gateway.__new__(Gateway)
        await encoder.__init__(settings, Local(registry))  # type: ignore[misc]
        await gateway.__init__(settings, Local(encoder), Local(registry))  # type: ignore[misc]
        for release in releases:
            await gateway.prepare(release)
            encoder.activate(release.name, release.version)
            gateway.activate(release)
        server = running["server"] = uvicorn.Server(uvicorn.Config(build(gateway), port=port, log_level="error"))
        asyncio.get_running_loop().call_later(0.5, ready.set)
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running["server"].should_exit = True
        thread.join(30)


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the page over these releases; at the end there must be no error in its console."""
    monkeypatch.setattr(packages, "resolve", lambda reference, **_: reference)
    errors: list[str] = []
    with ExitStack() as stack:

        def opened(releases: Sequence[Release]) -> Page:
            url = stack.enter_context(served(releases, tmp_path / "cache"))
            page = browser.new_page(viewport={"width": 1360, "height": 1000})
            stack.callback(page.close)
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.goto(url)
            expect(page.get_by_test_id("card").first).to_be_visible()
            return page

        yield opened
    assert errors == []


def test_a_shop_whose_model_takes_no_photos(
    open_page: Open, shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, {"words": save(tmp_path / "words", Words)})
    page = open_page([Release("words", "words/1", str(index(tmp_path / "index", "words", shop)), "a", ("embed_text",))])
    expect(page.get_by_test_id("models")).to_have_text("words/1: embeds texts")
    expect(page.get_by_test_id("model-version")).to_have_text("words/1")
    expect(page.get_by_test_id("photo-input")).to_be_hidden()
    expect(page.get_by_test_id("to-shelf")).to_be_hidden()
    expect(page.get_by_test_id("grid").locator("img").first).to_be_visible()
    page.get_by_test_id("search-input").fill("a mug")
    page.get_by_test_id("search-button").click()
    expect(page.get_by_test_id("status")).to_contain_text("nearest first")
    keep_picture(page, "texts-alone")
    page.get_by_test_id("grid").get_by_test_id("card").first.click()
    expect(page.get_by_test_id("similar-grid").get_by_test_id("hit").first).to_be_visible()
    for panel in ("attributes", "caption"):
        expect(page.get_by_test_id(panel).filter(visible=True)).to_have_count(0)


def test_a_captioner_beside_the_model_of_the_shop(
    open_page: Open, shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = make_package(tmp_path / "eclip", shop)
    install(monkeypatch, {"eclip": package, "captioner": save(tmp_path / "captioner", Captioner)})
    eclip = Release("eclip", "eclip/1", str(make_index(tmp_path / "index", package, shop, 1)), "a")
    page = open_page([Release("captioner", "captioner/1", capabilities=("write_text",)), eclip])
    expect(page.get_by_test_id("models").locator("li")).to_have_text(
        ["captioner/1: writes captions", "eclip/1: embeds photos, embeds texts"]
    )
    expect(page.get_by_test_id("model-version")).to_have_text("eclip/1")
    page.get_by_test_id("photo-input").set_input_files(
        {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": jpeg(6)}
    )
    caption = page.get_by_test_id("caption").filter(visible=True)
    expect(caption).to_contain_text("Caption by the model")
    expect(caption).to_contain_text("captioner/1, from the photo. It may be wrong.")
    expect(caption.get_by_test_id("caption-text")).not_to_be_empty()
    expect(page.get_by_test_id("status")).to_contain_text("nearest first")
    keep_picture(page, "caption")
    page.get_by_test_id("grid").get_by_test_id("card").first.click()
    expect(page.get_by_test_id("detail").get_by_test_id("caption-text")).to_be_visible()
    expect(page.get_by_test_id("model-version")).to_have_text("eclip/1")
    keep_picture(page, "product-caption")
    page.go_back()
    page.get_by_test_id("query-photo").get_by_role("button").click()
    expect(page.get_by_test_id("caption").filter(visible=True)).to_have_count(0)
