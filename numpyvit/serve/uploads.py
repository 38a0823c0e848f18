"""The images of a request: its body, the files of a form, or base64 in JSON. Nothing else of it is used."""

import base64
import io
import json

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_FIELD = "image"
_TAKEN = "send an image (image/*), a form (multipart/form-data) with files as 'image', or JSON {\"image\": base64}"
_MOST_FIELDS = 8


class Upload(io.BytesIO):
    """The bytes of an image file, which messages call "image", or "image 2"."""

    def __init__(self, content: bytes, name: str = "image"):
        super().__init__(content)
        self.name = name

    def __str__(self):
        return self.name


async def read_uploads(request: Request, max_bytes: int, max_images: int) -> list[Upload]:
    """The images of a request. Errors: HTTPException 400, 413 or 415, which says what was expected."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind.startswith("image/"):
        return [Upload(await _body(request, max_bytes))]
    if kind == "multipart/form-data":
        return await _files(request, await _body(request, max_bytes), max_images)
    if kind == "application/json":
        return [Upload(_from_json(await _body(request, max_bytes)))]
    raise HTTPException(415, f"the request is of type {kind[:100] or 'nothing'}; {_TAKEN}")


async def _body(request, limit):
    """The body, however long it says that it is."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HTTPException(413, f"the request has more than {limit:,} bytes; send smaller images")
    except ClientDisconnect:
        raise HTTPException(400, "the request ended before its end") from None
    return bytes(body)


async def _files(request, body, max_images):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(request.scope, receive).form(max_files=max_images, max_fields=_MOST_FIELDS) as form:
            found = form.getlist(_FIELD)
            if not found or any(isinstance(file, str) for file in found):
                raise HTTPException(400, f"the form has no files in its field '{_FIELD}'; {_TAKEN}")
            contents = [await file.read() for file in found]
    except ValueError as error:  # such as names in a charset that Python cannot read
        raise HTTPException(400, f"the form cannot be read ({error!s:.100}); {_TAKEN}") from None
    if len(contents) == 1:
        return [Upload(contents[0])]
    return [Upload(content, f"image {i}") for i, content in enumerate(contents, 1)]


def _from_json(body):
    try:
        value = json.loads(body)
        text = value[_FIELD] if isinstance(value, dict) else None
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (ValueError, KeyError, RecursionError):
        pass
    raise HTTPException(400, f"the JSON is not an object with base64 under '{_FIELD}'; {_TAKEN}")
