"""Errors of the HTTP API: a status, a code for programs and a sentence for people, in the shape of OpenAI.

{"error": {"message": "...", "type": "invalid_request_error", "param": "input[3]", "code": "image_truncated"}}
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

log = logging.getLogger("ray.serve")

Place = tuple[str | int, ...]
"""A place in a request: field names and positions."""

RETRY_AFTER_S = 2
"""Retry-After of a 503 that has no better estimate, seconds."""


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """Body of every answer with a status of 400 or more."""

    error: ErrorBody


class ApiError(Exception):
    """An answer with `status`; `param` names the part of the request at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[ApiError], tuple[Any, ...]]:
        return ApiError, (self.status, self.code, self.message, self.param, self.retry_after_s)

    def response(self) -> Response:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        body = ErrorBody(message=self.message, type=kind, param=self.param, code=self.code)
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return JSONResponse(ErrorAnswer(error=body).model_dump(), self.status, headers)


def bad_request(code: str, message: str, param: str | None = None) -> ApiError:
    return ApiError(400, code, message, param)


def not_found(code: str, message: str, param: str | None = None) -> ApiError:
    return ApiError(404, code, message, param)


def unavailable(code: str, message: str, retry_after_s: float = RETRY_AFTER_S) -> ApiError:
    return ApiError(503, code, message, retry_after_s=retry_after_s)


def invalid(error: ValidationError | RequestValidationError, where: Callable[[Place], Place] = tuple) -> ApiError:
    """The first of the validation errors as a 400 that names the place and never repeats the input."""
    fault = error.errors()[0]
    place = _written(where(tuple(fault["loc"])))
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "json_invalid":
        return bad_request("invalid_json", f"{place or 'the body'} is not JSON: {message}"[:300], place or None)
    code = {"extra_forbidden": "unknown_field", "missing": "missing_field"}.get(fault["type"], "invalid_value")
    return bad_request(code, f"{place or 'the body'}: {message}"[:300], place or None)


def _written(parts: Place) -> str:
    """`("input", 3, "image_url", "url")` -> `input[3].image_url.url`."""
    place = ""
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place[:100]


def install(app: FastAPI) -> None:
    """Makes every failure of `app`, those of Starlette too, answer in the shape of this module."""

    async def api_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error.response()

    async def parameters(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return invalid(error, lambda place: place[1:]).response()  # without "query", "path"

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {404: "unknown_path", 405: "method_not_allowed"}
        message = f"{request.method} {request.url.path[:100]}: {error.detail}; /docs lists what there is"
        answer = ApiError(error.status_code, codes.get(error.status_code, "http_error"), message).response()
        answer.headers.update(error.headers or {})
        return answer

    async def overloaded(_: Request, error: Exception) -> Response:
        return unavailable("overloaded", "too many requests are waiting; try again shortly").response()

    async def restarting(_: Request, error: Exception) -> Response:
        log.warning("a replica was lost while it worked on a request: %s", error)
        return unavailable("restarting", "a part of the service is restarting; try again shortly").response()

    async def gone(_: Request, error: Exception) -> Response:
        return bad_request("body_cut", "the client went away before the body was whole").response()

    async def unexpected(_: Request, error: Exception) -> Response:
        return ApiError(500, "internal_error", "something went wrong here; it has been logged").response()

    app.add_exception_handler(ApiError, api_error)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(BackPressureError, overloaded)
    app.add_exception_handler(DeploymentUnavailableError, restarting)
    app.add_exception_handler(RayActorError, restarting)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)
