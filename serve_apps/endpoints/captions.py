"""`POST /v1/captions`: a text that a model writes for a photo."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from serve_apps.encoded import Fault
from serve_apps.gateway import Gateway, Needs
from serve_apps.http.answers import answer
from serve_apps.http.errors import ApiError, bad_request, not_found
from serve_apps.http.inputs import FORM_IMAGE, IMAGE, Photo, ProductId, Strict
from serve_apps.http.parsing import Body, form_inputs, form_limits, is_form, must_be_json, parse, parse_form
from serve_apps.photos import UNPROCESSABLE
from serve_apps.references import AskedModel
from shoplens.packages.capabilities import WRITE_TEXT

NEEDS = Needs((WRITE_TEXT,), named="not_a_captioner", unnamed="no_captioner")


class CaptionRequest(Strict):
    """Exactly one of `image` and `product_id`."""

    model: AskedModel | None = Field(None, description="default: the first model in use that writes texts")
    image: str | None = Field(None, description=IMAGE)
    product_id: ProductId | None = Field(None, description="a product of the shop: its first photo")

    @model_validator(mode="after")
    def _one_photo(self) -> CaptionRequest:
        if (self.image is None) == (self.product_id is None):
            raise ValueError("give exactly one of image and product_id")
        return self


class CaptionForm(Strict):
    """The plain fields of a multipart request."""

    model: AskedModel | None = None


class Caption(BaseModel):
    index: int
    text: str = Field(description="written by the model; it may be wrong")


class CaptionAnswer(BaseModel):
    object: Literal["caption"] = "caption"
    model: str = Field(examples=["NAME/3"])
    data: list[Caption]


BODY = Body(
    CaptionRequest,
    {
        "photo": {"image": "data:image/jpeg;base64,..."},
        "product": {"product_id": "PRODUCT_ID"},
    },
    form={
        "required": ["image"],
        "properties": {
            "model": {"type": "string"},
            "image": {"type": "string", "format": "binary", "description": FORM_IMAGE},
        },
    },
)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["captions"])

    @routes.post("/v1/captions", response_model=CaptionAnswer, openapi_extra=BODY)
    async def captions(request: Request) -> Response:
        """A text for one photo, written by a model that does photo → text."""
        if is_form(request):
            async with request.form(**form_limits(gateway.settings.limits)) as form:
                fields, inputs = await form_inputs(form, text=None)
            model = parse_form(CaptionForm, fields).model
            if len(inputs) != 1:
                raise bad_request("invalid_value", "give one image", "image")
            photo = inputs[0]
            assert isinstance(photo, Photo)
            served = await gateway.served(model, NEEDS)
        else:
            must_be_json(request)
            asked = await gateway.in_thread(parse, CaptionRequest, await request.body())
            served = await gateway.served(asked.model, NEEDS)
            if asked.product_id is not None:
                photo = await _of_product(gateway, asked.product_id)
            else:
                assert asked.image is not None
                photo = Photo("image", asked.image)
        assert served.model.preprocessing is not None
        [pixels] = await gateway.photos.pixels([photo], served.model.preprocessing)
        if isinstance(pixels, ApiError):
            raise pixels
        [text] = await gateway.call(served, WRITE_TEXT, [pixels])
        if isinstance(text, Fault):
            raise ApiError(UNPROCESSABLE, "not_encodable", text.message, photo.place)
        body = {"object": "caption", "model": served.version, "data": [{"index": 0, "text": text}]}
        return answer(body, served.version)

    return routes


async def _of_product(gateway: Gateway, product_id: str) -> Photo:
    """The first photo of a product of the shop. Raises ApiError 404."""
    shop = await gateway.served(needs=Needs(index=True))
    assert shop.catalogue is not None
    try:
        data = await gateway.in_thread(shop.catalogue.first_photo, product_id)
    except KeyError:
        message = f"{shop.catalogue.name} has no such product"
        raise not_found("product_not_found", message, "product_id") from None
    return Photo("product_id", data)
