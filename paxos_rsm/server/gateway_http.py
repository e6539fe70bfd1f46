"""The HTTP side of the gateway (see ``gateway.py``): one port, requests in, JSON out.

A caller who goes away ends its call, as with gRPC; one who does not read its stream stops it from being filled. A
header ``Grpc-Timeout`` is a deadline. Pages in a browser are let in by their ``Origin``. A request that cannot be
understood is answered with a sentence and never with a traceback. As many calls are in progress as gRPC allows, and a
body may be as large as the largest request in base64.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, TypeAlias

import grpc
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from paxos_rsm._version import __version__
from paxos_rsm.config import url_address
from paxos_rsm.errors import ConfigError, PaxosRsmError
from paxos_rsm.machines.kv.types import REQUEST_TOO_LARGE
from paxos_rsm.server.etcd_calls import TOO_MANY_REQUESTS, status_of
from paxos_rsm.server.gateway_calls import (
    HTTP_STATUS,
    Aborted,
    CallContext,
    Method,
    find_methods,
    from_json,
    json_objects,
    timeout_s,
    to_json,
)
from paxos_rsm.server.listening import RPCS_MAX, require_free
from paxos_rsm.server.maintenance_service import ETCD_VERSION
from paxos_rsm.server.rpc import BUG, Context, StatusError
from paxos_rsm.server.status_codes import code_of_number, number_of, status_code_of

__all__ = ["HttpGateway"]

PREFIXES = ("/v3", "/v3beta")
VERSIONS = {"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_VERSION, "paxos_rsm": __version__}

BODY_ERRORS = (HttpProcessingError, web.RequestPayloadError)
CORS_HEADERS = {
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Headers": "accept, content-type, authorization",
    "Vary": "Origin",
}
Handle: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

HEALTH_TIMEOUT_S = 1.0
"""A read that takes longer is as good as none, to whoever asks for health."""
STREAM_OBJECT_BYTES_MAX = 256 * 1024
"""Of one request on a stream, as JSON."""
CALLS_END_S = 0.5
"""What is in progress when the gateway stops has so long; it was drained before."""

log = logging.getLogger(__name__)


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Not that somebody has sent what is no HTTP: it was answered, and anybody could fill the log with it."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


http_log = logging.getLogger(f"{__name__}.aiohttp")
http_log.addFilter(_is_of_interest)


class HttpGateway:
    """A server of HTTP. Made by :func:`paxos_rsm.server.gateway.make_gateway`."""

    def __init__(
        self,
        urls: tuple[str, ...],
        handlers: Iterable[grpc.GenericRpcHandler],
        read_index: Callable[[Context], Awaitable[None]],
        *,
        request_bytes_max: int,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self._urls = urls
        self._origins = origins
        self._read_index = read_index
        # Four characters for three bytes, and the names around them.
        self._body_bytes_max = 2 * request_bytes_max + 64 * 1024
        self._in_progress = 0
        app = web.Application(client_max_size=self._body_bytes_max, middlewares=[_in_json, self._of_pages])
        app.on_response_prepare.append(self._tell_browser)
        for path, method in find_methods(handlers).items():
            for prefix in PREFIXES:
                app.router.add_post(f"{prefix}/{path}", self._handler(method))
        app.router.add_get("/health", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/livez", _live)
        app.router.add_get("/version", _version)
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            # A body counts as long as it came: what grows a thousandfold when it is unpacked is for nobody here.
            auto_decompress=False,
            access_log=None,
            logger=http_log,
            shutdown_timeout=CALLS_END_S,
        )
        self.addresses: list[tuple[str, int]] = []
        """Where it listens, once it is started."""

    async def start(self) -> None:
        """Listens. Raises ConfigError where an address cannot be had."""
        require_free(self._urls, "--listen-http-urls", "HTTP")
        await self._runner.setup()
        for url in self._urls:
            host, _, port = url_address(url).rpartition(":")
            try:
                await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
            except OSError as error:
                await self.stop()
                raise ConfigError(
                    f"cannot listen for HTTP on {url}: {error.strerror}; change --listen-http-urls"
                ) from None
        self.addresses = [(address[0], address[1]) for address in self._runner.addresses]

    async def stop(self) -> None:
        """Closes the port, and ends what is still in progress after a moment. May be called twice, or unstarted."""
        await self._runner.cleanup()

    # ---- calls ---------------------------------------------------------------------------------------------

    def _handler(self, method: Method) -> Handle:
        call = self._stream if method.gives_stream else self._unary

        async def handle(request: web.Request) -> web.StreamResponse:
            if self._in_progress >= RPCS_MAX:
                raise status_of(TOO_MANY_REQUESTS)
            self._in_progress += 1
            try:
                return await call(method, request)
            finally:
                self._in_progress -= 1

        return handle

    async def _unary(self, method: Method, request: web.Request) -> web.StreamResponse:
        limit_s = _limit_s(request)
        body = await from_json(method.request_type, await _body(request))
        context = CallContext(timeout_s=limit_s, metadata=_metadata(request))
        data = await _in_time(limit_s, method.behaviour(body, context))
        return _json_response(await to_json(method.response_type, data))

    async def _stream(self, method: Method, request: web.Request) -> web.StreamResponse:
        limit_s = _limit_s(request)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})

        async def say(line: dict[str, Any]) -> None:
            try:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(_dumped(line) + b"\n")
            except ConnectionError:
                raise _gone() from None

        async def write(data: bytes) -> None:
            await say({"result": await to_json(method.response_type, data)})

        first: Any = None
        requests: AsyncIterator[bytes] | None = None
        if method.takes_stream:
            chunks = _chunks(request)
            requests = json_objects(method.request_type, chunks, STREAM_OBJECT_BYTES_MAX)
        else:
            first = await from_json(method.request_type, await _body(request))

        async def read() -> Any:
            return grpc.aio.EOF if requests is None else await anext(requests, grpc.aio.EOF)

        context = CallContext(timeout_s=limit_s, metadata=_metadata(request), read=read, write=write)
        try:
            await _in_time(limit_s, method.behaviour(first, context))
        except (Aborted, StatusError) as error:
            if not response.prepared:
                raise
            await say({"error": _told_in_stream(error.code, error.details)})
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    # ---- web pages -------------------------------------------------------------------------------------------

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin in self._origins

    @web.middleware
    async def _of_pages(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Refuses what a page asks that may not, and answers a browser that asks whether it may."""
        origin = request.headers.get("Origin")
        if origin is None:
            return await handler(request)
        if not self._allows(origin):
            raise StatusError(
                grpc.StatusCode.PERMISSION_DENIED,
                f"paxos_rsm: web pages of the origin {origin[:100]!r} may not use this server; the flag --cors names "
                "those that may",
            )
        if request.method == "OPTIONS":
            return web.Response()
        return await handler(request)

    async def _tell_browser(self, request: web.Request, response: web.StreamResponse) -> None:
        """Whose page may read this, in the words of etcd."""
        origin = request.headers.get("Origin")
        if origin is not None and self._allows(origin):
            response.headers.update(CORS_HEADERS)
            response.headers["Access-Control-Allow-Origin"] = origin

    # ---- beside the API --------------------------------------------------------------------------------------

    async def _unhealthy(self) -> str:
        """Why not; empty where a linearizable read works."""
        context: Any = CallContext(timeout_s=HEALTH_TIMEOUT_S)
        try:
            await _in_time(HEALTH_TIMEOUT_S, self._read_index(context))
        except (Aborted, StatusError) as error:
            return error.details
        except PaxosRsmError as error:
            return str(error)
        return ""

    async def _health(self, _request: web.Request) -> web.Response:
        reason = await self._unhealthy()
        if reason:
            return _json_response({"health": "false", "reason": reason}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json_response({"health": "true"})

    async def _ready(self, _request: web.Request) -> web.Response:
        reason = await self._unhealthy()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK
        return web.Response(text=f"{reason or 'ok'}\n", status=status)


async def _live(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _version(_request: web.Request) -> web.Response:
    return _json_response(VERSIONS)


# ---- requests and responses --------------------------------------------------------------------------------


def _gone() -> Aborted:
    return Aborted(grpc.StatusCode.CANCELLED, "the caller has gone")


def _cut() -> StatusError:
    return StatusError(
        grpc.StatusCode.INVALID_ARGUMENT, "the body of the request is not what its headers say that it is"
    )


async def _body(request: web.Request) -> bytes:
    try:
        return await request.read()
    except BODY_ERRORS:
        raise _cut() from None


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    """The body as it comes. A caller who leaves in the middle is nobody's bug."""
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except ConnectionError:
        raise _gone() from None
    except BODY_ERRORS:
        raise _cut() from None


def _limit_s(request: web.Request) -> float | None:
    header = request.headers.get("Grpc-Timeout")
    return None if header is None else timeout_s(header)


def _metadata(request: web.Request) -> dict[str, str]:
    """What gRPC's clients send beside a request: headers with a prefix, as in etcd's gateway."""
    prefix = "grpc-metadata-"
    return {
        name[len(prefix) :]: value
        for name, value in request.headers.items()
        if name.lower().startswith(prefix)
    }


async def _in_time(limit_s: float | None, call: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(limit_s):
            return await call
    except TimeoutError:
        raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded") from None


@web.middleware
async def _in_json(request: web.Request, handler: Handle) -> web.StreamResponse:
    """What a handler raises, as etcd's gateway says it."""
    try:
        return await handler(request)
    except (Aborted, StatusError) as error:
        return _error_response(error.code, error.details)
    except PaxosRsmError as error:
        return _error_response(status_code_of(error), str(error))
    except web.HTTPRequestEntityTooLarge as error:
        return _error_response(
            code_of_number(REQUEST_TOO_LARGE.code), REQUEST_TOO_LARGE.message, error.status
        )
    except web.HTTPException as error:
        code = (
            grpc.StatusCode.NOT_FOUND
            if error.status == HTTPStatus.NOT_FOUND
            else grpc.StatusCode.UNIMPLEMENTED
        )
        response = _error_response(
            code, f"{error.reason}: {request.method} {request.path[:200]}", error.status
        )
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except ConnectionError:
        raise
    except Exception as error:
        log.error("a request failed for a reason that nobody foresaw", exc_info=error)
        return _error_response(grpc.StatusCode.INTERNAL, BUG)


def _error_response(code: grpc.StatusCode, words: str, status: int = 0) -> web.Response:
    body = {"error": words, "message": words, "code": number_of(code)}
    return _json_response(body, status or HTTP_STATUS[code])


def _told_in_stream(code: grpc.StatusCode, words: str) -> dict[str, Any]:
    status = HTTPStatus(HTTP_STATUS[code])
    return {
        "grpc_code": number_of(code),
        "http_code": status.value,
        "message": words,
        "http_status": status.phrase,
    }


def _json_response(value: Any, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=_dumped(value), status=status, content_type="application/json")


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
