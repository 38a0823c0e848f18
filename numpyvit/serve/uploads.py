"""The images of a request: its body, the files of a form, or base64 in JSON. Nothing else of it is used."""

import base64
import io
import json

from python_multipart import FormParser
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_FIELD = "image"
_TAKEN = "send an image (image/*), a form (multipart/form-data) with files as 'image', or JSON {\"image\": base64}"


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
        return _files(request.headers["content-type"], await _body(request, max_bytes), max_images)
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


def _files(kind, body, max_images):
    """The files of a form. All is in memory already, so that nothing goes to disk."""
    found = []
    options = {"MAX_MEMORY_FILE_SIZE": len(body)}
    try:
        boundary = parse_options_header(kind)[1].get(b"boundary")
        form = FormParser("multipart/form-data", None, found.append, boundary=boundary, config=options)
        form.write(body)
        form.finalize()
    except ValueError as error:
        raise HTTPException(400, f"the form cannot be read ({error!s:.100}); {_TAKEN}") from None
    contents = [file.file_object.getvalue() for file in found if file.field_name == _FIELD.encode()]
    if not contents:
        raise HTTPException(400, f"the form has no files in its field '{_FIELD}'; {_TAKEN}")
    if len(contents) > max_images:
        raise HTTPException(413, f"the form has {len(contents)} files, expected at most {max_images}")
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
