"""An AsyncClient without servers: a dictionary with revisions, enough for what the commands print."""

from types import TracebackType
from typing import Any, Self

from paxos_rsm.client import GetResult, KeyValue, PutResult, RangeResult, TxnResult
from paxos_rsm.errors import PaxosRsmError

MISSING = GetResult(b"", None, 0, 0, 0, 1)


class FakeClient:
    """Takes the calls of AsyncClient; all instances share one store, and note how they were called."""

    kvs: dict[bytes, KeyValue]
    calls: list[tuple[str, dict[str, Any]]]
    revision: int
    failure: PaxosRsmError | None

    @classmethod
    def reset(cls) -> None:
        cls.kvs, cls.calls, cls.revision, cls.failure = {}, [], 1, None

    def __init__(self, endpoints: Any, **settings: Any) -> None:
        self._note("client", endpoints=tuple(endpoints), **settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note("close")

    def _note(self, what: str, **arguments: Any) -> None:
        self.calls.append((what, arguments))
        if self.failure is not None and what not in ("client", "close"):
            raise self.failure

    def _selected(self, key: bytes | None, end: bytes | None, prefix: bytes | None) -> list[KeyValue]:
        def within(each: bytes) -> bool:
            if prefix is not None:
                return each.startswith(prefix)
            if key is None or end is None:
                return key is None or each == key
            return each >= key and (end == b"\0" or each < end)

        return [self.kvs[each] for each in sorted(self.kvs) if within(each)]

    async def put(self, key: bytes | str, value: bytes | str, *, prev_kv: bool = False) -> PutResult:
        key = key.encode() if isinstance(key, str) else key
        value = value.encode() if isinstance(value, str) else value
        self._note("put", key=key, value=value, prev_kv=prev_kv)
        before = self.kvs.get(key)
        type(self).revision += 1
        version, created = (before.version + 1, before.create_revision) if before else (1, self.revision)
        self.kvs[key] = KeyValue(key, value, version, created, self.revision)
        return PutResult(self.revision, before if prev_kv else None)

    async def get(self, key: bytes | str, **options: Any) -> Any:
        key = key.encode() if isinstance(key, str) else key
        self._note("get", key=key, **options)
        return self.kvs.get(key, MISSING)

    async def range(
        self,
        key: bytes | None = None,
        end: bytes | None = None,
        *,
        prefix: bytes | None = None,
        **options: Any,
    ) -> RangeResult:
        self._note("range", key=key, end=end, prefix=prefix, **options)
        found = self._selected(key, end, prefix)
        shown = found[: options["limit"]] if options.get("limit") else found
        kvs = () if options.get("count_only") else tuple(shown)
        return RangeResult(kvs, len(found), len(shown) < len(found), self.revision, 7, 20)

    async def txn(self, compares: Any, success: Any, failure: Any = ()) -> TxnResult:
        self._note("txn", success=success)
        responses: list[Any] = []
        for op in success:
            request = op.message.request_range if not op.message.HasField("request_delete_range") else None
            of = request if request is not None else op.message.request_delete_range
            kvs = [kv for kv in self.kvs.values() if kv.key == of.key or of.key <= kv.key < of.range_end]
            if request is not None:
                responses.append(RangeResult(tuple(kvs), len(kvs), False, self.revision))
            else:
                for kv in kvs:
                    del self.kvs[kv.key]
                type(self).revision += bool(kvs)
                responses.append(len(kvs))
        return TxnResult(True, tuple(responses), self.revision)

    async def delete(self, key: bytes | None = None, *, prefix: str | None = None) -> int:
        self._note("delete", key=key, prefix=prefix)
        found = self._selected(key, None, None if prefix is None else prefix.encode())
        for kv in found:
            del self.kvs[kv.key]
        return len(found)

    async def compare_and_swap(self, key: bytes, expected: bytes | None, new: bytes) -> bool:
        self._note("compare_and_swap", key=key, expected=expected, new=new)
        before = self.kvs.get(key)
        if (before.value if before else None) != expected:
            return False
        await self.put(key, new)
        return True

    async def compact(self, revision: int) -> None:
        self._note("compact", revision=revision)

    async def submit(self, command: bytes) -> bytes:
        self._note("submit", command=command)
        return b"did " + command

    async def query(self, request: bytes, *, serializable: bool = False) -> bytes:
        self._note("query", request=request, serializable=serializable)
        return request * 2
