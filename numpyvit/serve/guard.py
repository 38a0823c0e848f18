"""What every answer carries, and which pages of a browser may ask."""

import re
from collections.abc import Sequence

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
_PORT = re.compile(r":\d*$")


class Guard:
    """An ASGI middleware: security headers on every answer, 403 for pages of other origins, 400 for other hosts.

    hosts: names of this machine that requests may be for, against pages that point a name of theirs at it; ["*"]: any.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self.app, self.hosts = app, hosts
        self.headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope, receive, send):
        async def guarded_send(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self.headers]}
            await send(message)

        refusal = self._refusal(dict(scope["headers"])) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, guarded_send)

    def _refusal(self, headers):
        """The answer to a request that is not let through, else None."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _is_foreign(headers):
            return JSONResponse({"error": "pages of other origins may not ask this server"}, 403)
        if "*" not in self.hosts and _PORT.sub("", host) not in self.hosts:
            return JSONResponse({"error": f"this server is not {host[:100]}; ask {self.hosts[0]}"}, 400)
        return None


def _is_foreign(headers):
    """Whether a browser says that a page of another origin asks."""
    origin = headers.get(b"origin")
    return origin is not None and origin.split(b"://")[-1] != headers.get(b"host")
