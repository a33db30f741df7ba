"""What comes back, as OpenAPI describes it; `Prediction.to_dict()` is what it describes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from cliptune.serving.body import ManyPhotos, OnePhoto


class Score(BaseModel):
    """A class, its probability, and the name to show."""

    label: str
    probability: float
    name: str


class PredictionOut(BaseModel):
    """What is on a photo: `known` false says that it perhaps shows none of the classes.

    `prediction_set` are the classes of which one is right at the rate `coverage`; both are left out
    by a checkpoint that was trained without. Where classes have parents, `sure_of` is the deepest
    class or parent that is right at the rate `sure_share`, or null. Of a checkpoint of several
    labels, `shown` are all classes that reach their threshold.
    """

    image: str | None
    label: str
    name: str
    probability: float
    known: bool | None
    known_score: float | None
    scores: list[Score]
    prediction_set: list[Score] | None = None
    coverage: float | None = None
    sure_of: Score | None = None
    sure_share: float | None = None
    shown: list[Score] | None = None


class PhotoError(BaseModel):
    """Why there is no answer for one of several photos."""

    image: str | None
    error: str


class Predictions(BaseModel):
    """For each photo, in the order they were sent."""

    predictions: list[PredictionOut | PhotoError]


class Error(BaseModel):
    """Why a request was refused, and what to do."""

    error: str


class ClassOut(BaseModel):
    """A class name, for programs, and the name to show."""

    label: str
    name: str


class AboutOut(BaseModel):
    """What answers, and within what limits."""

    checkpoint: str
    version: str
    classes: list[ClassOut]
    precision: str
    tells_none_of_these: bool
    shows_where_it_looked: bool
    needs_key: bool
    max_bytes: int
    max_pixels: int
    max_photos: int


class State(BaseModel):
    """Of the server."""

    status: str


_REFUSED = {
    400: "The request cannot be read.",
    401: "It needs a key.",
    408: "It took too long to arrive.",
    413: "Too many bytes, pixels or photos.",
    415: "A content type that is not read.",
    422: "The photo cannot be read, or a parameter is out of range.",
    429: "Too many requests wait.",
    500: "A fault of the server.",
    503: "The server starts or ends, or the process that was answering died.",
    504: "The answer took too long.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For FastAPI: that these are answered, all or some, by an `Error`."""
    return {
        status: {"model": Error, "description": words}
        for status, words in _REFUSED.items()
        if not statuses or status in statuses
    }


def one_body() -> dict[str, Any]:
    """What `POST /predict` takes."""
    photo = {"schema": {"type": "string", "format": "binary"}}
    content = {"image/*": photo, "application/octet-stream": photo}
    return _body(OnePhoto, content, image={"type": "string", "format": "binary"})


def many_bodies() -> dict[str, Any]:
    """What `POST /predict/many` takes."""
    file = {"type": "string", "format": "binary"}
    return _body(ManyPhotos, {}, images={"type": "array", "items": file, "minItems": 1})


def _body(
    model: type[BaseModel], content: dict[str, Any], **fields: dict[str, Any]
) -> dict[str, Any]:
    form = {
        "type": "object", "properties": fields, "required": list(fields),
        "additionalProperties": False,
    }  # fmt: skip
    content |= {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": model.model_json_schema()},
    }
    return {"requestBody": {"required": True, "content": content}}
