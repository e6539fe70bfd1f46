import socket
from collections.abc import Iterator

import pytest

from paxos_rsm.testing.ports import HIGHEST, LOWEST, PortHolder, port_is_free


def test_ports_are_free_distinct_and_below_what_the_kernel_gives_out() -> None:
    with PortHolder() as holder:
        ports = holder.take(8)
        assert len(set(ports)) == 8
        assert all(LOWEST <= port < HIGHEST and port_is_free(port) for port in ports)


def test_port_with_a_listener_is_not_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not port_is_free(port)
    assert port_is_free(port)


def test_held_port_is_not_given_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = PortHolder(), PortHolder()
    with first, second:
        held = first.take(1)[0]

        class Asked:
            """Proposes the held port before others."""

            def __init__(self) -> None:
                self.ports: Iterator[int] = iter(
                    [held, held, *range(held + 1, HIGHEST), *range(LOWEST, held)]
                )

            def randrange(self, *_: int) -> int:
                return next(self.ports)

        monkeypatch.setattr(second, "_random", Asked())
        assert second.take(1) != [held]
        assert port_is_free(held)  # the hold does not keep the server itself away


def test_a_row_has_no_port_that_somebody_else_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = PortHolder(), PortHolder()
    with first, second:
        row = first.take_row(6)
        assert row == list(range(row[0], row[0] + 6))
        tried = iter([row[0] - 5, row[5]])  # one of them is held
        drawn = second._random.randrange
        monkeypatch.setattr(
            second._random, "randrange", lambda low, high: next(tried, None) or drawn(low, high)
        )
        other = second.take_row(6)
        assert not {*other} & {*row}
        assert sorted(second._held) == other, "what was tried in vain is given back"
        assert next(tried, None) is None


def test_gives_up_where_every_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with PortHolder() as holder:
        monkeypatch.setattr("paxos_rsm.testing.ports.port_is_free", lambda port: False)
        with pytest.raises(OSError, match="no free port"):
            holder.take(1)
        with pytest.raises(OSError, match="no 6 free ports in a row"):
            holder.take_row(6)


def test_close_gives_back() -> None:
    first, second = PortHolder(), PortHolder()
    with second:
        port = first.take(1)[0]
        second.hold([port])
        assert not second._held
        first.close()
        second.hold([port])
        assert list(second._held) == [port]
