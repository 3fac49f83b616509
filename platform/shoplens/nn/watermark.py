"""A detector of marks: every tile of a photo gives evidence, and the photo's score is the soft maximum over its tiles.

A watermark is small and lies anywhere, most often at the border. The mean over a whole map hides it. So the maps of
several stages are reduced to the maximum and the mean of each of `tiles` x `tiles` fields; a small network, the same for
every tile, turns them and the tile's place into evidence. This is learning from bags (the photo has the label, its tiles
have none) with the log-sum-exp of Ramon and De Raedt (2000), "Multi instance neural networks".
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.photo_encoder import PhotoEncoder, PhotoEncoderConfig
from shoplens.nn.towers import ImageTower, ImageTowerConfig, timm_trunk


class TilesConfig(Config):
    """What the evidence is made of."""

    stages: tuple[int, ...] = Field(
        (3, 4),
        min_length=1,
        description="Stages of the trunk whose maps are read, from 0. Early stages see thin letters, late ones shapes.",
    )
    tiles: int = Field(5, ge=1, description="Tiles along each side of the photo.")
    hidden: int = Field(64, ge=1, description="Size of the layer between a tile and its evidence.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Share of that layer that training leaves out.")


class MarkDetectorConfig(PhotoEncoderConfig):
    """Settings of a detector of marks. `dim`, `image.pooling` and `image.projection` play no part."""

    head: TilesConfig = Field(TilesConfig(), description="The tiles and the layers on them.")


class TileTower(ImageTower):
    """A timm trunk that gives tiles instead of one vector. Raises ShoplensError if the trunk has no such stages."""

    def __init__(self, config: ImageTowerConfig, head: TilesConfig) -> None:
        nn.Module.__init__(self)  # without the pooling and the projection of an ImageTower
        options = {**config.options, "features_only": True, "out_indices": head.stages}
        try:
            self.trunk = timm_trunk(config.model_copy(update={"options": options}))
            channels = [int(n) for n in self.trunk.feature_info.channels()]
        except (AttributeError, IndexError, AssertionError) as error:
            raise ShoplensError(f"the image tower {config.name!r} has no stages {head.stages}: {error}") from error
        self.tiles, self.channels = head.tiles, 2 * sum(channels)
        self.width = self.tiles**2 * self.channels

    def trunk_vectors(self, pixels: Tensor) -> Tensor:
        """Standardised pixels float [n, 3, h, w] -> tiles [n, width], which is [n, tiles * tiles, channels] flat."""
        pools = (functional.adaptive_max_pool2d, functional.adaptive_avg_pool2d)
        rows = [pool(stage.float(), self.tiles) for stage in self.trunk(pixels) for pool in pools]
        return torch.cat(rows, 1).flatten(2).transpose(1, 2).flatten(1)

    def forward(self, photos: Tensor) -> Tensor:
        """Standardised pixels float [n, 3, h, w], or `trunk_vectors` [n, width] -> `trunk_vectors` [n, width]."""
        return photos if photos.ndim == 2 else self.trunk_vectors(photos)


class MarkDetector(PhotoEncoder):
    """Trunk, tiles and evidence."""

    image: TileTower

    def __init__(self, config: MarkDetectorConfig, preprocessing: Preprocessing, *, pretrained: bool = True) -> None:
        super().__init__(config, preprocessing, pretrained=pretrained)
        channels, hidden = self.image.channels, config.head.hidden
        self.standardise = nn.BatchNorm1d(channels, affine=False)
        self.tile = nn.Linear(channels, hidden)
        self.place = nn.Parameter(torch.zeros(self.image.tiles**2, hidden))
        self.dropout = nn.Dropout(config.head.dropout)
        self.evidence = nn.Linear(hidden, 1)
        self.lock(config.locked)

    def make_tower(self, config: PhotoEncoderConfig, image_size: int) -> ImageTower:
        assert isinstance(config, MarkDetectorConfig)
        return TileTower(config.image, config.head)

    def tile_logits(self, photos: Tensor) -> Tensor:
        """Evidence float32 [n, tiles * tiles], row by row from the upper left.

        photos   pixels uint8 [n, 3, h, w], or `trunk_vectors` of a locked trunk, float [n, width]
        """
        rows = self.tower_rows(photos)
        with torch.autocast(rows.device.type, enabled=False):
            tiles = rows.view(len(rows), -1, self.image.channels)
            seen = self.standardise(tiles.flatten(0, 1)).view_as(tiles)
            hidden = functional.relu(self.tile(self.dropout(seen)) + self.place)
            return self.evidence(self.dropout(hidden)).squeeze(-1)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos as in `tile_logits` -> logits float32 [n]: the log of the mean of exp over the tiles."""
        logits = self.tile_logits(photos)
        return logits.logsumexp(1) - math.log(logits.shape[1])
