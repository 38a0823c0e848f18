"""What every answer carries, and which pages of a browser may ask."""

from starlette.responses import JSONResponse
from starlette.types import ASGIApp

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Guard:
    """An ASGI middleware: security headers on every answer, and 403 for requests from pages of other origins."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope, receive, send):
        async def guarded_send(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.headers]}
            await send(message)

        if scope["type"] == "http" and _is_foreign(dict(scope["headers"])):
            refusal = JSONResponse({"error": "pages of other origins may not ask this server"}, 403)
            await refusal(scope, receive, guarded_send)
        else:
            await self.app(scope, receive, guarded_send)


def _is_foreign(headers):
    """Whether a browser says that a page of another origin asks."""
    origin = headers.get(b"origin")
    return origin is not None and origin.split(b"://")[-1] != headers.get(b"host")
