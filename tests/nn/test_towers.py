"""timm image towers: vectors are `dim` wide, or as wide as the trunk if there is no projection."""

from __future__ import annotations

import pytest
import torch

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
