"""CLIK: ranking candidate photos by a query made of a topic and a memory bank of photos.

An implementation from the description in Ko, Jeong, Kim, CLIK (Recommender Systems in Fashion and Retail, 2023).
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
    """Settings of the group query: a topic q becomes the query g = normalise(W [q ; v] + b) that scores photos."""

    reads: Literal["nothing", "mean", "attention"] = Field(
        "nothing",
        description="The vector v beside the topic q: `nothing` (then g = normalise(W q + b)), the `mean` of the "
        "memory bank, or the bank's photos weighted by `attention` to q.",
    )
    residual: bool = Field(
        True,
        description="Add q: g = normalise(q + W [q ; v] + b), with W and b zero before training. An untrained query "
        "then equals its topic.",
    )
    temperature: float = Field(0.1, gt=0, description="Temperature of the attention before training.")
    learn_temperature: bool = Field(True, description="Whether training changes the temperature of the attention.")
    nearest: int = Field(0, ge=0, description="Attend to this many nearest photos of the bank only; 0: to all.")
    bank: int = Field(4096, ge=1, description="Size of the memory bank in photos.")
    exclude_own: bool = Field(
        True, description="In training, ignore bank photos of the ranked topic and of products among its candidates."
    )


class MemoryBank(nn.Module):
    """A ring buffer of unit rows [size, dim], each with its topic and product id. The first `filled` rows are valid."""

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
        """Overwrites the oldest rows with the rows [n, dim] of every worker, in rank order.

        topic, product   int64 [n]

        If more rows arrive than the bank holds, the last ones stay.
        """
        size = len(self.rows)
        rows, topic, product = (gather_rows(tensor)[-size:] for tensor in (rows, topic, product))
        place = (self.written + torch.arange(len(rows), device=rows.device)) % size
        self.rows[place], self.topic[place], self.product[place] = rows.to(self.rows.dtype), topic, product
        self.written.copy_((self.written + len(rows)) % size)
        self.filled.copy_((self.filled + len(rows)).clamp(max=size))

    @torch.no_grad()
    def freeze(self, rows: Tensor) -> None:
        """Replaces the bank by unit rows [n <= size, dim] for inference. They have no topic and no product (id -1)."""
        self.rows.zero_()
        self.rows[: len(rows)] = rows
        for ids in (self.topic, self.product):
            ids.fill_(-1)
        self.filled.fill_(len(rows))
        self.written.zero_()

    def open_to(self, topic: Tensor, candidates: Tensor) -> Tensor:
        """Mask bool [G, size] of the rows to attend to: valid, of other topics and of no candidate product.

        topic, candidates   int64 [G] and [G, K]
        """
        own = (self.topic == topic[:, None]) | (self.product[None, None, :] == candidates[:, :, None]).any(1)
        return self.valid & ~own

    @property
    def valid(self) -> Tensor:
        return torch.arange(len(self.rows), device=self.rows.device) < self.filled


class Attended(NamedTuple):
    """`virtual`: the virtual photo of each query, unit rows [G, dim]; `weights`: attention [G, size]."""

    virtual: Tensor
    weights: Tensor


def attend(query: Tensor, bank: Tensor, allowed: Tensor, temperature: Tensor | float, nearest: int = 0) -> Attended:
    """Attention of queries to the photos of the bank: weights proportional to exp(q.B / temperature).

    query     unit rows [G, dim]
    bank      unit rows [size, dim]
    allowed   bool [G, size]; a query without an allowed row gets zeros
    nearest   attend to this many nearest rows only, of equally near ones to the first; 0: to all
    """
    scores = (query @ bank.T / temperature).masked_fill(~allowed, -torch.inf)
    if nearest and nearest < scores.shape[1]:
        farther = scores.argsort(dim=1, descending=True, stable=True)[:, nearest:]
        scores = scores.scatter(1, farther, -torch.inf)
    weights = scores.softmax(1).where(allowed.any(1, keepdim=True), 0)
    return Attended(functional.normalize(weights @ bank, dim=1), weights)


class GroupQuery(nn.Module):
    """Topics to unit queries, which score photos by inner product."""

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
        """Unit topics [G, dim] -> unit queries [G, dim].

        allowed   bool [G, bank], the rows of the bank to read; default: all valid rows
        """
        return functional.normalize(self.unnormalised(query, allowed), dim=1)

    def unnormalised(self, query: Tensor, allowed: Tensor | None = None) -> Tensor:
        inputs = [query]
        if self.bank is not None:
            allowed = self.bank.valid.expand(len(query), -1) if allowed is None else allowed
            inputs.append(self._virtual(query, self.bank.rows.to(query.dtype), allowed))
        aggregated = self.aggregate(torch.cat(inputs, 1))
        return query + aggregated if self.config.residual else aggregated

    def _virtual(self, query: Tensor, bank: Tensor, allowed: Tensor) -> Tensor:
        if self.config.reads == "mean":
            return functional.normalize(allowed.to(bank.dtype) @ bank, dim=1)
        return attend(query, bank, allowed, self.temperature, self.config.nearest).virtual

    @property
    def temperature(self) -> Tensor | float:
        return self.config.temperature if self.log_temperature is None else self.log_temperature.exp().clamp(0.01, 10)


class ClikConfig(DualEncoderConfig):
    """Settings of CLIK: a dual encoder of topics and photos, and the query that ranks photos."""

    query: GroupQueryConfig = Field(GroupQueryConfig(), description="How a topic becomes the query that scores photos.")
    topic_text: TopicTextConfig = Field(TopicTextConfig(), description="How the fields of a topic become a text.")
    rank_temperature: float = Field(
        0.07, gt=0, description="Temperature of the scores in the ranking loss before training."
    )
    learn_temperatures: bool = Field(
        True,
        description="Whether training changes `rank_temperature` and `initial_temperature` (of the matching loss).",
    )


class Ranked(NamedTuple):
    """Unit rows `image` and `text` [m, dim] of the pairs, `scores` [g, k] of the lists, and both logit scales."""

    image: Tensor
    text: Tensor
    scores: Tensor
    logit_scale: Tensor
    rank_scale: Tensor


class Clik(DualEncoder):
    """A dual encoder whose texts are topics, with a `GroupQuery`. A training step calls each tower once."""

    def __init__(
        self, config: ClikConfig, preprocessing: Preprocessing, vocab_size: int, *, pretrained: bool = True
    ) -> None:
        super().__init__(config, preprocessing, vocab_size, pretrained=pretrained)
        self.query = GroupQuery(config.query, config.dim)
        self.rank_scale = nn.Parameter(torch.tensor(math.log(1 / config.rank_temperature)))
        for scale in (self.logit_scale, self.rank_scale):
            scale.requires_grad_(config.learn_temperatures)

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the towers of a trained dual encoder or CLIK. The query keeps its initial weights.

        Raises ShoplensError if a weight is missing, is unknown or has another shape.
        """
        query = {name: value for name, value in self.state_dict().items() if _of_query(name)}
        super().start({**query, **{name: value for name, value in weights.items() if not _of_query(name)}})

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
        """Encodes m pairs to match and g lists of k candidates, then scores the lists. Pairs come first in each tensor.

        pixels                     uint8 [m + g k, 3, h, w]
        ids, mask, types           [m + g, t]
        pair_topic, pair_product   int64 [m]
        list_topic                 int64 [g]
        list_product               int64 [g, k]

        In training, the photos of the pairs enter the memory bank before the lists are ranked.
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
