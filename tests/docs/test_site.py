"""The site: it builds without a warning, refers to nothing outside itself, and names every setting."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal, get_args, get_origin
from urllib.parse import unquote, urldefrag

import pytest
import yaml

from serve_apps.settings import Limits
from shoplens.cluster.file import Cluster
from shoplens.config import Config
from shoplens.recipes.eclip import EclipConfig
from tests.conftest import ROOT

sys.path.append(str(ROOT / "docs"))
from generate import settings  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
    assert "WARNING" not in ran.stdout
    return out


class Page(HTMLParser):
    """The addresses that a page refers to, those it loads, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "link") and "href" in given:
            self.links.append(given["href"])
        if "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    dead = []
    for path, page in pages.items():
        for link in {*page.links, *page.loads}:
            address, anchor = urldefrag(link)
            if re.match("[a-z]+:", address):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            known = pages[target].anchors if target in pages else set()
            if not target.exists() or (anchor and target in pages and unquote(anchor) not in known):
                dead.append(f"{path.name}: {link}")
    assert not dead


def test_nothing_is_loaded_from_outside(pages: dict[Path, Page]) -> None:
    assert not [link for page in pages.values() for link in page.loads if re.match("([a-z]+:)?//", link)]


def test_every_page_is_in_the_navigation(site: Path, pages: dict[Path, Page]) -> None:
    listed = {(site / unquote(urldefrag(link).url)).resolve() for link in pages[site / "index.html"].links}
    written = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {site / path for path in written} <= listed
    assert set(pages) <= listed


@pytest.mark.parametrize(
    ("page", "key", "model", "field"),
    [
        ("eclip", "training.stream_size", EclipConfig.model_fields["training"].annotation, "stream_size"),
        ("cluster_file", "train.num_workers", Cluster.model_fields["train"].annotation, "num_workers"),
        ("cluster_file", "ray.address", Cluster.model_fields["ray"].annotation, "address"),
        ("cluster_file_args_of_the_application", "limits.candidates", Limits, "candidates"),
    ],
)
def test_the_reference_has_settings_with_their_descriptions(
    site: Path, page: str, key: str, model: type[Config], field: str
) -> None:
    text = (site / "reference/settings" / f"{page}.html").read_text("utf-8")
    row = next(row for row in re.findall("<tr>.*?</tr>", text, re.DOTALL) if f"<code>{key}</code>" in row)
    shown = " ".join(html.unescape(re.sub("<[^>]+>", " ", row)).split())
    described = model.model_fields[field].description or ""
    assert " ".join(described.replace("`", " ").split()) in shown


def test_yaml_reads_names_and_choices_of_settings_as_texts() -> None:
    """YAML 1.1 reads `on`, `off`, `yes` and `no` as true and false, so no such word can be a key or a choice."""

    def choices(annotation: Any) -> list[str]:
        if get_origin(annotation) is Literal:
            return [choice for choice in get_args(annotation) if isinstance(choice, str)]
        return [choice for inner in get_args(annotation) for choice in choices(inner)]

    for model in settings.all_settings():
        for name, field in model.model_fields.items():
            written = [name, *choices(field.annotation)]
            assert [yaml.safe_load(word) for word in written] == written, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("reference/http.html", "POST /v1/similar"),
        ("reference/http.html", "SimilarAnswer"),
        ("reference/shoplens.html", "shoplens dataset synthesize"),
        ("reference/jobs.html", "workloads.train"),
        ("reference/python/objectives.html", "shoplens.objectives.contrastive"),
    ],
)
def test_the_reference_has_the_api_the_commands_and_python(site: Path, page: str, said: str) -> None:
    assert said in (site / page).read_text("utf-8")


def test_every_room_has_a_page(site: Path) -> None:
    rooms = {path.stem for path in (ROOT / "platform/shoplens").iterdir() if not path.name.startswith((".", "_"))}
    assert {path.stem for path in (site / "reference/python").glob("*.html")} == rooms - {"py"}


def test_every_setting_is_described() -> None:
    assert settings.undescribed() == []
