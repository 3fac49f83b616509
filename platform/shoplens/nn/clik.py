"""CLIK: a topic and the photos it is near to become one query, which candidate photos are ranked by.

Ko, Jeong, Kim, CLIK (Recommender Systems in Fashion and Retail, 2023), rebuilt from its description.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import Config
from shoplens.datasets.preprocessing import Preprocessing
from shoplens.datasets.topic_text import TopicTextConfig
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.objectives.gather import gather_rows


class GroupQueryConfig(Config):
    """How a topic q becomes the query g that scores photos.

    reads        what stands beside q in g = normalise(W [q ; v] + b): `nothing`, the `mean` of the memory bank, or
                 the photos of the bank by `attention` to q
    residual     g = normalise(q + W [q ; v] + b), W and b starting at zero
    temperature  of the attention at the start; learnt unless `learn_temperature` is false
    nearest      attention to so many photos of the bank at most (0: all)
    bank         photos that the bank holds
    exclude_own  photos of the ranked topic, and of products that are candidates, are not attended to
    """

    reads: Literal["nothing", "mean", "attention"] = "nothing"
    residual: bool = True
    temperature: float = Field(0.1, gt=0)
    learn_temperature: bool = True
    nearest: int = Field(0, ge=0)
    bank: int = Field(4096, ge=1)
    exclude_own: bool = True


class MemoryBank(nn.Module):
    """A ring of unit rows [size, dim] with the topic and the product that each was of; `filled` of them are valid."""

    rows: Tensor
    topic: Tensor
    product: Tensor
    filled: Tensor
    written: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, dim))
        for name in ("topic", "product"):
            self.register_buffer(name, torch.full((size,), -1, dtype=torch.int64))
        for name in ("filled", "written"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def write(self, rows: Tensor, topic: Tensor, product: Tensor) -> None:
        """Puts rows [n, dim] of every worker in the place of the oldest, in rank order; in place.

        Of more rows than the bank has, the last stay. As many rows as the bank has replace it whole.
        """
        size = len(self.rows)
        rows, topic, product = (gather_rows(each)[-size:] for each in (rows, topic, product))
        place = (self.written + torch.arange(len(rows), device=rows.device)) % size
        self.rows[place], self.topic[place], self.product[place] = rows.to(self.rows.dtype), topic, product
        self.written.copy_((self.written + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))

    @torch.no_grad()
    def freeze(self, rows: Tensor) -> None:
        """Fills the bank with unit rows [n <= size, dim] that are of no topic and no product, to rank with from now on."""
        self.rows.zero_()
        self.rows[: len(rows)] = rows
        for ids in (self.topic, self.product):
            ids.fill_(-1)
        self.filled.fill_(len(rows))
        self.written.zero_()

    def open_to(self, topic: Tensor, candidates: Tensor) -> Tensor:
        """bool [G, size]: the valid rows of other topics than `topic` [G] and other products than `candidates` [G, K]."""
        own = (self.topic == topic[:, None]) | (self.product[None, None, :] == candidates[:, :, None]).any(1)
        return self.valid & ~own

    @property
    def valid(self) -> Tensor:
        return torch.arange(len(self.rows), device=self.rows.device) < self.filled


class Attended(NamedTuple):
    """`virtual` [G, dim] unit rows, the virtual photo of each query; `weights` [G, size]."""

    virtual: Tensor
    weights: Tensor


def attend(query: Tensor, bank: Tensor, allowed: Tensor, temperature: Tensor | float, nearest: int = 0) -> Attended:
    """Photos of the bank in proportion to exp(q.B / temperature).

    query [G, dim], bank [size, dim] unit rows; allowed bool [G, size], where a query without any gets zeros
    """
    scores = (query @ bank.T / temperature).masked_fill(~allowed, -torch.inf)
    if nearest and nearest < scores.shape[1]:
        kth = scores.topk(nearest, dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    weights = scores.softmax(1).where(allowed.any(1, keepdim=True), 0)
    return Attended(functional.normalize(weights @ bank, dim=1), weights)


class GroupQuery(nn.Module):
    """Topics -> the unit queries that photos are scored with."""

    def __init__(self, config: GroupQueryConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.aggregate = nn.Linear(dim if config.reads == "nothing" else 2 * dim, dim)
        if config.residual:
            nn.init.zeros_(self.aggregate.weight)
            nn.init.zeros_(self.aggregate.bias)
        self.bank = MemoryBank(config.bank, dim) if config.reads != "nothing" else None
        log_temperature = torch.tensor(math.log(config.temperature))
        learnt = config.learn_temperature and config.reads == "attention"
        self.log_temperature = nn.Parameter(log_temperature) if learnt else None

    def forward(self, query: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Unit topics [G, dim] -> unit queries [G, dim]; allowed bool [G, bank], all valid rows if not given."""
        return functional.normalize(self.unnormalised(query, allowed), dim=1)

    def unnormalised(self, query: Tensor, allowed: Tensor | None = None) -> Tensor:
        beside = [query]
        if self.bank is not None:
            allowed = self.bank.valid.expand(len(query), -1) if allowed is None else allowed
            beside.append(self._virtual(query, self.bank.rows.to(query.dtype), allowed))
        mixed = self.aggregate(torch.cat(beside, 1))
        return query + mixed if self.config.residual else mixed

    def _virtual(self, query: Tensor, bank: Tensor, allowed: Tensor) -> Tensor:
        if self.config.reads == "mean":
            return functional.normalize(allowed.to(bank.dtype) @ bank, dim=1)
        return attend(query, bank, allowed, self.temperature, self.config.nearest).virtual

    @property
    def temperature(self) -> Tensor | float:
        return self.config.temperature if self.log_temperature is None else self.log_temperature.exp().clamp(0.01, 10)


class ClikConfig(DualEncoderConfig):
    """A dual encoder of topics and photos, and what ranks with it.

    query              how a topic becomes the query that scores photos
    topic_text         how a topic is written down
    rank_temperature   of the scores in the ranking loss, at the start
    learn_temperatures whether training moves it and `initial_temperature`, that of the matching loss
    """

    query: GroupQueryConfig = GroupQueryConfig()
    topic_text: TopicTextConfig = TopicTextConfig()
    rank_temperature: float = Field(0.07, gt=0)
    learn_temperatures: bool = True


class Ranked(NamedTuple):
    """Unit rows `image`, `text` [m, dim] of the pairs to match, `scores` [g, k] of the lists, and both scales."""

    image: Tensor
    text: Tensor
    scores: Tensor
    logit_scale: Tensor
    rank_scale: Tensor


class Clik(DualEncoder):
    """The dual encoder whose texts are topics, with a `GroupQuery`; one call of each tower a step."""

    def __init__(
        self, config: ClikConfig, preprocessing: Preprocessing, vocab_size: int, *, pretrained: bool = True
    ) -> None:
        super().__init__(config, preprocessing, vocab_size, pretrained=pretrained)
        self.query = GroupQuery(config.query, config.dim)
        self.rank_scale = nn.Parameter(torch.tensor(math.log(1 / config.rank_temperature)))
        for scale in (self.logit_scale, self.rank_scale):
            scale.requires_grad_(config.learn_temperatures)

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the towers of a trained dual encoder or CLIK; the query begins anew."""
        own = {name: value for name, value in self.state_dict().items() if _of_query(name)}
        super().start({**own, **{name: value for name, value in weights.items() if not _of_query(name)}})

    def forward(  # type: ignore[override]
        self,
        pixels: Tensor,
        ids: Tensor,
        mask: Tensor,
        types: Tensor,
        pair_topic: Tensor,
        pair_product: Tensor,
        list_topic: Tensor,
        list_product: Tensor,
    ) -> Ranked:
        """Photos and texts of m pairs to match, then those of g lists of k candidates to rank.

        pixels        uint8 [m + g k, 3, h, w]
        ids, mask, types  [m + g, t]
        pair_topic, pair_product  int64 [m]; list_topic int64 [g]; list_product int64 [g, k]

        In training the photos to match go into the memory bank before the lists are ranked.
        """
        image, text = self.encode_image(pixels), self.encode_text(ids, mask, types)
        pairs, bank = len(pair_topic), self.query.bank
        with torch.autocast(image.device.type, enabled=False):
            if bank is not None and self.training:
                bank.write(image[:pairs].detach(), pair_topic, pair_product)
            allowed = (
                bank.open_to(list_topic, list_product) if bank is not None and self.query.config.exclude_own else None
            )
            queries = self.query(text[pairs:], allowed)
            scores = torch.einsum("gd,gkd->gk", queries, image[pairs:].unflatten(0, list_product.shape))
        with torch.no_grad():
            for scale in (self.logit_scale, self.rank_scale):
                scale.clamp_(max=self._max_log_scale)
        return Ranked(image[:pairs], text[:pairs], scores, self.logit_scale.exp(), self.rank_scale.exp())


def _of_query(name: str) -> bool:
    return name.startswith("query.") or name == "rank_scale"
