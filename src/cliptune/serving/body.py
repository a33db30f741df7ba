"""From a request to photos, within the limits: multipart, the bytes of one photo, base64 in JSON.

What a client sends is bytes and names, and stays that: no name is opened as a path or an address.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from email.message import Message
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from cliptune.errors import named
from cliptune.foreign_errors import validation_faults
from cliptune.serving.limits import Limits, Refused, busy, too_large

# With `image/…`, what the bytes of a photo are sent as; the second by curl where it is not told.
RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
LINGER = 2.0  # seconds that the rest of a refused body may take to arrive
NAME_LENGTH = 255  # of a photo's name, which comes back with its answer

Base64Photo = Annotated[str, Field(min_length=1, json_schema_extra={"contentEncoding": "base64"})]


@dataclass(frozen=True)
class Photo:
    """An encoded photo, and what the client calls it."""

    content: bytes
    name: str | None = None


class OnePhoto(BaseModel):
    """A photo in base64; a data URI is taken, too."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: Base64Photo


class ManyPhotos(BaseModel):
    """Photos in base64."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: Annotated[list[Base64Photo], Field(min_length=1)]


class Held:
    """How many bytes all requests hold together."""

    def __init__(self, most: int) -> None:
        self._most, self._now = most, 0

    def take(self, count: int) -> None:
        """Raises `Refused` where it would be too many."""
        if self._now + count > self._most:
            raise busy("the server holds as many photos as its memory is meant for")
        self._now += count

    def give_back(self, count: int) -> None:
        """Of what was taken."""
        self._now -= count


class Body:
    """The body of `request`, as a context: what it holds is counted until its end."""

    def __init__(self, request: Request, limits: Limits, held: Held) -> None:
        self._request, self._limits, self._held = request, limits, held
        self._taken = 0

    async def __aenter__(self) -> bytes:
        """Raises `Refused` for a body that is too large, too slow or that does not end."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                return b"".join([chunk async for chunk in self._chunks()])
        except TimeoutError:
            self._release()
            raise Refused(
                408, f"the request did not arrive within {self._limits.seconds:g} seconds.",
                headers={"Connection": "close"},
            ) from None  # fmt: skip
        except Refused:
            self._release()
            await self._linger()
            raise
        except BaseException:
            self._release()
            raise

    async def _linger(self) -> None:
        """Let the rest arrive, and drop it: who is cut off while sending never reads the answer."""
        with contextlib.suppress(TimeoutError, RuntimeError):  # the latter: it has all arrived
            async with asyncio.timeout(LINGER):
                async for _ in self._request.stream():
                    pass

    async def __aexit__(self, *error: object) -> None:
        self._release()

    async def _chunks(self) -> AsyncIterator[bytes]:
        announced = self._request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limits.max_bytes:
            raise too_large(self._limits)
        async for chunk in self._request.stream():
            self._held.take(len(chunk))
            self._taken += len(chunk)
            if self._taken > self._limits.max_bytes:
                raise too_large(self._limits)
            yield chunk

    def _release(self) -> None:
        self._held.give_back(self._taken)
        self._taken = 0


async def one_photo(request: Request, body: bytes, limits: Limits) -> Photo:
    """The one photo of `request`, whose body is `body`. Raises `Refused`."""
    kind, is_photo = _kind(request)
    if is_photo:
        if not body:
            raise Refused(400, "the request is empty. Send a photo as its body.")
        return Photo(body)
    if kind == "multipart/form-data":
        photos = await _parts(request, body, limits, "image")
        if len(photos) > 1:
            raise Refused(
                400, f"found {len(photos)} photos; expected one. For several: /predict/many"
            )
        return photos[0]
    if kind == "application/json":
        return _decoded(_json(OnePhoto, body).image, "image")
    raise _other_kind(kind, "a photo as it is (Content-Type: image/jpeg, say), ")


async def many_photos(request: Request, body: bytes, limits: Limits) -> list[Photo]:
    """The photos of `request`, one or more. Raises `Refused`."""
    kind, _ = _kind(request)
    if kind == "multipart/form-data":
        return await _parts(request, body, limits, "images")
    if kind == "application/json":
        given = _json(ManyPhotos, body).images
        _check_number(len(given), limits)
        return [_decoded(text, f"images[{i}]") for i, text in enumerate(given)]
    raise _other_kind(kind, "")


def _kind(request: Request) -> tuple[str, bool]:
    """(the media type, whether the body is a photo as it is)."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise Refused(415, f"Content-Encoding: found '{encoding[:40]}'; expected none.")
    header = Message()
    header["content-type"] = request.headers.get("content-type", "application/octet-stream")
    kind = header.get_content_type()
    return kind, kind in RAW or kind.startswith("image/")


def _other_kind(kind: str, raw: str) -> Refused:
    return Refused(
        415,
        f"Content-Type: found '{kind[:80]}'; expected {raw}multipart/form-data, or "
        "application/json with base64.",
    )


async def _parts(request: Request, body: bytes, limits: Limits, field: str) -> list[Photo]:
    """The files of a form's field `field`, held in memory alone."""

    class InMemory(MultiPartParser):
        spool_max_size = limits.max_bytes + 1  # never to a file

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = InMemory(request.headers, whole(), max_files=limits.max_photos, max_fields=8)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(limits) from None
        raise Refused(400, f"the form cannot be read: {error.message}") from None
    except (KeyError, ValueError, LookupError) as error:  # no boundary, an unknown character set
        raise Refused(400, f"the form cannot be read: {type(error).__name__}: {error}") from None
    files = [each for each in form.getlist(field) if isinstance(each, UploadFile)]
    if not files or len(files) != len(form.multi_items()):
        found = named([str(key)[:40] for key in form]) or "none"
        raise Refused(
            400,
            f"the form's fields: found {found}; expected files in the field '{field}' and nothing "
            f"else (curl: -F {field}=@photo.jpg).",
        )
    photos = [Photo(await each.read(), _name(each.filename)) for each in files]
    await form.close()
    return photos


def _json(model: type[Any], body: bytes) -> Any:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = "; ".join(validation_faults(error)[:3])
        raise Refused(400, f"the JSON does not fit: {faults}"[:600]) from None


def _decoded(text: str, where: str) -> Photo:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Photo(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400,
            f"{where}: no base64: {error}. Expected the bytes of a photo; neither paths nor "
            "addresses are opened.",
        ) from None


def _check_number(count: int, limits: Limits) -> None:
    if count > limits.max_photos:
        raise _too_many(limits)


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"more than {limits.max_photos} photos. Send them in several requests.")


def _name(name: str | None) -> str | None:
    return name[:NAME_LENGTH] if name else None
