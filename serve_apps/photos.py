"""Photos of requests: a URL or bytes -> the pixels that a model takes, in threads beside the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from serve_apps.http.errors import ApiError, bad_request
from serve_apps.http.inputs import Photo, is_url, photo_bytes
from serve_apps.settings import Settings
from shoplens.datasets import images
from shoplens.datasets.fetch import UrlRejected, fetch_image
from shoplens.datasets.preprocessing import Preprocessing

T = TypeVar("T")

FETCH_THREADS = 8
FETCH_TIMEOUT_S = 10.0
UNPROCESSABLE = 422


class Photos:
    """Threads that decode, and threads that wait for the network."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self._fetchers = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="fetch")

    async def pixels(self, photos: Sequence[Photo], preprocessing: Preprocessing) -> list[np.ndarray | ApiError]:
        """uint8 [3, size, size] for each photo, or its error: 422 if it is no photo, 400 if its URL is not allowed."""
        results = await asyncio.gather(*(self._one(photo, preprocessing) for photo in photos), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ApiError):
                raise result
        return results  # type: ignore[return-value]

    async def _one(self, photo: Photo, preprocessing: Preprocessing) -> np.ndarray:
        source = photo.source
        if isinstance(source, str) and is_url(source):
            source = await self._in(self._fetchers, self._fetch, source, photo.place)
        return await self._in(self._decoders, _decode, source, photo.place, preprocessing)

    @staticmethod
    async def _in(pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    def _fetch(self, url: str, place: str) -> bytes:
        settings = self._settings
        if not settings.image_hosts:
            message = "image URLs are not fetched here; send the photo as data:image/...;base64,..."
            raise bad_request("url_not_allowed", message, place)
        try:
            return fetch_image(
                url,
                allow_hosts=settings.image_hosts,
                max_bytes=images.MAX_BYTES,
                timeout_s=FETCH_TIMEOUT_S,
                allow_private=settings.private_hosts,
            )
        except UrlRejected as error:
            raise bad_request(
                error.reason if error.reason.startswith("url") else f"url_{error.reason}", str(error), place
            ) from None


def _decode(source: bytes | str, place: str, preprocessing: Preprocessing) -> np.ndarray:
    data = photo_bytes(source, place) if isinstance(source, str) else source
    try:
        return preprocessing(images.decode(data, draft=preprocessing.draft).image)
    except images.ImageRejected as error:
        raise ApiError(UNPROCESSABLE, f"image_{error.reason}", str(error), place) from None
