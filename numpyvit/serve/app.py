"""The addresses of a server: /predict, /attention, /info, /health and the page."""

import asyncio
import contextlib
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from ..data.images import stored_size
from ..errors import ConfigError, DataError
from .batching import Batcher
from .guard import Guard
from .limits import Limits
from .served import Served
from .uploads import read_uploads

LOCAL = ("localhost", "127.0.0.1", "[::1]")
_PAGE = pathlib.Path(__file__).parent / "page"
_READERS = 2  # images that are decoded at a time


def create_app(
    served: Served, limits: Limits | None = None, hosts: Sequence[str] = LOCAL, watched: bool = False
) -> Starlette:
    """An ASGI application around a model. `app.state.service.served` may be replaced while it runs.

    hosts: names by which browsers may reach it, against pages that point a name of theirs at this machine; ["*"]: any.
    watched: whether the page asks again and again for newer weights.
    """
    service = Service(served, limits or Limits(), watched)
    app = Starlette(
        routes=[
            Route("/predict", service.predict, methods=["POST"]),
            Route("/attention", service.attention, methods=["POST"]),
            Route("/info", service.info),
            Route("/health", service.health),
            *(Route(f"/{file.name.removeprefix('index.html')}", _file(file)) for file in sorted(_PAGE.iterdir())),
        ],
        middleware=[Middleware(Guard, hosts=tuple(hosts))],
        exception_handlers={HTTPException: _as_json, Exception: _internal_error},
        lifespan=lambda app: service.running(),
    )
    app.state.service = service
    return app


class Service:
    """The model of a server, the threads that work for it, and how many requests are on their way."""

    def __init__(self, served: Served, limits: Limits, watched: bool):
        self.served, self.limits, self.watched = served, limits, watched
        self.version = self.on_their_way = 0

    def replace(self, served: Served) -> None:
        """Answer with another model from the next batch on."""
        self.served, self.version = served, self.version + 1

    @contextlib.asynccontextmanager
    async def running(self):
        limits = self.limits
        self.predicting = Batcher(lambda items: self.served.predict(items), limits.max_batch, limits.max_wait_ms / 1e3)
        self.looking = Batcher(lambda items: self.served.look(items))
        with ThreadPoolExecutor(_READERS, "numpyvit-images") as self.readers:
            yield
            self.predicting.close()
            self.looking.close()

    # -- addresses

    async def predict(self, request):
        top, with_image = _number(request, "top"), _flag(request, "image")
        images, found = await self._answers(request, self.predicting, lambda image: (image, top))
        if with_image:
            found = [{**results, "image": self.served.picture(image)} for image, results in zip(images, found)]
        return JSONResponse(found[0] if len(found) == 1 else {"images": found})

    async def attention(self, request):
        asked = _number(request, "layer"), _number(request, "head"), _flag(request, "rollout")
        _, found = await self._answers(request, self.looking, lambda image: (image, *asked))
        return JSONResponse(found[0] if len(found) == 1 else {"images": found})

    async def info(self, request):
        return JSONResponse({**self.served.info(), "version": self.version, "watched": self.watched})

    async def health(self, request):
        return JSONResponse({"status": "ok"})

    # -- from a request to answers

    async def _answers(self, request, batcher, item):
        """-> the images of a request, and what a batcher answers to item(image) of each."""
        if self.on_their_way >= self.limits.queue:
            raise HTTPException(503, "too many requests wait; try again", {"Retry-After": "1"})
        self.on_their_way += 1
        try:
            uploads = await self._received(request)
            async with asyncio.timeout(self.limits.timeout):
                images = await asyncio.gather(*map(self._read, uploads))
                futures = [asyncio.wrap_future(batcher.submit(item(image))) for image in images]
                return images, await asyncio.gather(*futures)
        except TimeoutError:
            raise HTTPException(504, f"no answer within {self.limits.timeout:g} seconds; try again") from None
        except asyncio.CancelledError:  # the server is stopped, and has waited for a while
            raise HTTPException(503, "the server is stopped") from None
        except (ConfigError, DataError) as error:
            raise HTTPException(422, str(error)) from None
        finally:
            self.on_their_way -= 1

    async def _received(self, request):
        limits = self.limits
        try:
            async with asyncio.timeout(limits.timeout):
                return await read_uploads(request, int(limits.max_body_mb * 1e6), limits.max_images)
        except TimeoutError:
            raise HTTPException(408, f"the request did not arrive within {limits.timeout:g} seconds") from None

    async def _read(self, upload):
        return await asyncio.get_running_loop().run_in_executor(self.readers, self._decoded, upload)

    def _decoded(self, upload):
        height, width = stored_size(upload)
        most = self.limits.max_megapixels
        if height * width > most * 1e6:
            raise HTTPException(413, f"{upload}: has {width}×{height} pixels, expected at most {most:g} million")
        return self.served.read(upload)


def _file(path):
    """What answers with a file of the page; no other can be asked for."""

    async def answer(request):
        return FileResponse(path)

    return answer


def _number(request, name):
    """A whole number above 0 of the address, None where it is left out."""
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise HTTPException(400, f"{name}={text[:50]}: expected a whole number above 0")
    return int(text)


def _flag(request, name):
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise HTTPException(400, f"{name}={text[:50]}: expected true or false")
    return text == "true"


async def _as_json(request, error):
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _internal_error(request, error):
    return JSONResponse({"error": "the server failed; its log tells why"}, 500)
