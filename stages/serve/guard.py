"""What stands before every request: who may ask, how often, and how much; and the headers of every answer."""

import asyncio
import hashlib
import hmac
import itertools
import json
import logging
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from stages.serve.metrics import Metrics
from stages.serve.settings import LOOPBACK, Settings

OPEN_PATHS = {"/", "/docs", "/openapi.json", "/healthz", "/readyz"}  # without a token: no text is in them
ASSETS = "/static/"
MOST_CLIENTS = 10_000
BURST_SECONDS = 10
BODY_SECONDS = 30  # a body that comes slower is given up
HEADERS = {
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger("stages.serve")


class ApiError(Exception):
    """An answer in one sentence. seconds: when to try again, where that helps."""

    def __init__(self, status: int, sentence: str, seconds: int | None = None):
        super().__init__(sentence)
        self.status, self.sentence, self.seconds = status, sentence, seconds

    @property
    def headers(self) -> dict[str, str]:
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return found if self.seconds is None else {**found, "Retry-After": str(self.seconds)}


@dataclass
class Rates:
    """A budget of texts for each client, refilled by time. The clients that were quiet for longest are forgotten.

    rate: texts a second; None for no limit.
    """

    rate: float | None
    left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)  # client: texts, at what time

    def take(self, client: str, texts: int, now: float) -> None:
        """Takes texts from a client's budget. Raises ApiError if it has too few left."""
        if self.rate is None:
            return
        most = self.rate * BURST_SECONDS
        left, since = self.left.pop(client, (most, now))
        left = min(most, left + (now - since) * self.rate)
        cost = min(texts, most)  # a request that is larger than the whole budget waits until that is full
        enough = left >= cost
        self.left[client] = (left - cost if enough else left, now)
        if len(self.left) > MOST_CLIENTS:
            self.left.popitem(last=False)
        if not enough:
            wait = math.ceil((cost - left) / self.rate)
            raise ApiError(429, f"more than {self.rate:g} texts a second from this address: wait {wait} s", wait)


def may_enter(token: str | None, header: str) -> bool:
    """Whether the header Authorization holds the token. Takes the same time for any wrong one."""
    if token is None:
        return True
    scheme, _, given = header.partition(" ")
    one, other = (hashlib.sha256(each.encode("utf-8", "surrogateescape")).digest() for each in (given.strip(), token))
    return hmac.compare_digest(one, other) and scheme.lower() == "bearer"


def host_name(header: str) -> str:
    """The name in a header Host, without the port.

    >>> host_name("localhost:8000"), host_name("[::1]:80"), host_name("::1")
    ('localhost', '::1', '::1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return (header if header.count(":") > 1 else header.partition(":")[0]).lower()


def require_host(settings: Settings, header: str) -> None:
    """Raises ApiError for a name that is not this server's, where no token protects it.

    A page of a stranger can make a browser ask its own name, which then leads to this machine (DNS rebinding). Such a
    request is known by its header Host. A server that others can reach by names unknown here is not checked.
    """
    if settings.token is not None or (settings.open_to_others and not settings.names):
        return
    if host_name(header) not in {*LOOPBACK, settings.host.lower(), *(name.lower() for name in settings.names)}:
        raise ApiError(421, f"this server is not {header[:100]!r}: start it with --name {host_name(header)[:100]}")


async def read_body(receive: Receive, headers: Mapping[str, str], most: int) -> bytes:
    """The body of a request. Raises ApiError if it is too large or too slow, or breaks off."""
    length = headers.get("content-length", "")
    too_large = ApiError(413, f"the body has more than {most} bytes: send fewer texts at once")
    if length.isdecimal() and int(length) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(400, "the connection ended before the body")
                body += message.get("body", b"")
                if len(body) > most:
                    raise too_large
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        raise ApiError(408, f"the body took longer than {BODY_SECONDS} s") from None


class Guard:
    """Checks host and token of each request, adds headers to each answer, counts it, and logs crashes.

    Args:
        app: what answers.
        settings: of the server.
        metrics: to count in.
        paths: paths that are counted by name; the others count as "other", so that strangers make no series.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics, paths: set[str]):
        self.app, self.settings, self.metrics, self.paths = app, settings, metrics, paths
        self.started, self.numbers = uuid.uuid4().hex[:16], itertools.count(1)  # together the identity of a request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self.answer(scope, receive, send)
        else:  # a web socket: there is none here
            await send({"type": "websocket.close", "code": 1008})

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = time.perf_counter(), 0
        request_id = f"{self.started}{next(self.numbers):08x}"
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message["headers"]}
                extra = [(name, value) for name, value in HEADERS.items() if name not in given]
                message["headers"] = [*message["headers"], *extra, (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self.let_in(scope)
            await self.app(scope, receive, send_with_headers)
        except ApiError as error:
            await respond(send_with_headers, error)
        except Exception:
            logger.exception("request %s failed", request_id)  # it is answered, or uvicorn cuts the connection
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - begun)

    def let_in(self, scope: Scope) -> None:
        """Raises ApiError if the request may not come in."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path = scope["path"]
        if path not in ("/healthz", "/readyz"):  # probes ask by address
            require_host(self.settings, headers.get(b"host", ""))
        if path in OPEN_PATHS or path.startswith(ASSETS):
            return
        if not may_enter(self.settings.token, headers.get(b"authorization", "")):
            raise ApiError(401, "expected the header `Authorization: Bearer TOKEN` with this server's token")


async def respond(send: Send, error: ApiError) -> None:
    """Sends an error as JSON, where no framework is around."""
    body = json.dumps({"error": error.sentence}).encode()
    extra = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", b"application/json"), length, *extra]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
