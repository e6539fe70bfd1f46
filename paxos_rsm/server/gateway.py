"""etcd's API as JSON over HTTP, for those who have no gRPC: shells, and tools such as Patroni that speak only this.

::

    POST /v3/kv/range {"key": "Zm9v"}            bytes in base64, 64-bit numbers as strings, defaults left out
          |  gateway_http.py: one port, HTTP/1.1
          v
    gateway_calls.py: JSON -> message -> the very method that gRPC calls -> message -> JSON
          |
          v
    {"header": {...}, "kvs": [{"key": "Zm9v", ...}], "count": "1"}

There is one implementation of each method, and this is not one of them: the gateway is given the handlers that the
gRPC server is given. Paths, names, errors and HTTP statuses are those of etcd 3.4's own gateway; ``/v3beta`` means the
same as ``/v3``. What streams (``watch``, ``lease/keepalive``, ``election/observe``, ``maintenance/snapshot``)
answers with one object a line, ``{"result": ...}`` or, in the end, ``{"error": ...}``.

Beside the API:

- ``/health``: ``{"health":"true"}``, or 503 and ``"false"`` with a reason. True where a linearizable read works now.
- ``/readyz``: the same in words, 200 or 503; ``/livez``: 200 as long as the process answers at all.
- ``/version``: ``etcdserver`` and ``etcdcluster`` are the version of the etcd whose API this is, since tools choose
  their requests by them; ``paxos_rsm`` is ours.

**Web pages.** A browser lets any page that somebody looks at send requests to this port, also where only the browser's
machine can reach it; the page cannot read the answer, but a write is done by then. Such requests have an ``Origin``.
So a request with one that is not allowed (``--cors``) is refused before it is read, a page's that calls itself the
server's own too: by rebinding a name, anybody can call himself so. What is no browser sends no ``Origin``.

It has a port of its own (``--listen-http-urls``), none by default, and needs aiohttp: the extra ``gateway``.
"""

from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import grpc

from paxos_rsm.errors import ConfigError
from paxos_rsm.server.rpc import Context

if TYPE_CHECKING:
    from paxos_rsm.server.gateway_http import HttpGateway

__all__ = ["make_gateway"]


def make_gateway(
    urls: Iterable[str],
    handlers: Iterable[grpc.GenericRpcHandler],
    read_index: Callable[[Context], Awaitable[None]],
    *,
    request_bytes_max: int,
    origins: Iterable[str] = (),
) -> "HttpGateway":
    """A gateway to ``handlers``, on the addresses of ``urls``; it is not started yet.

    ``read_index`` returns once a linearizable read would work: that is what health means. ``origins`` are those of the
    web pages that may use it, ``*`` all. Raises ConfigError where aiohttp is not installed.
    """
    if find_spec("aiohttp") is None:
        raise ConfigError(
            "--listen-http-urls needs aiohttp, which is not installed; install the extra: "
            "pip install 'paxos-rsm[gateway]'"
        )
    from paxos_rsm.server.gateway_http import HttpGateway

    return HttpGateway(
        tuple(urls), handlers, read_index, request_bytes_max=request_bytes_max, origins=frozenset(origins)
    )
