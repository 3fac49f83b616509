"""The examples that need a platform, run on that of the end-to-end tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Platform


@pytest.fixture(scope="module")
def own(platform: Platform, champion: int, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("own")
    return platform.type_in(sys.executable, "examples/train_on_your_own_table.py", str(out), "--train")


def test_a_table_of_ones_own_becomes_a_registered_model(platform: Platform, own: str) -> None:
    assert "Next: shoplens promote own 1 --alias champion" in own
    assert "own/1" in platform.type_in("shoplens", "models")


def test_calls_from_python(platform: Platform, demo_url: str, champion: int) -> None:
    printed = platform.type_in(sys.executable, "examples/call_from_python.py", demo_url)
    assert re.search(rf"eclip/{champion}: vectors of \d+ numbers", printed)
    seed = httpx.get(f"{demo_url}/v1/products", params={"limit": 1}).json()["data"][0]["product_id"]
    assert len(printed.partition(f"similar to {seed}")[2].partition("\n\n")[0].splitlines()) == 6


def test_serving_a_version(platform: Platform, demo_url: str, champion: int, shop: Path) -> None:
    printed = platform.type_in("env", f"ENDPOINT={demo_url}", "examples/serve.sh", "eclip", str(champion), str(shop))
    assert f'"model":"eclip/{champion}"' in printed.replace(" ", "").rpartition("answers")[2]
