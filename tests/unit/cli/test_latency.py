from hypothesis import given
from hypothesis import strategies as st

from paxos_rsm.cli.latency import Latencies


def of(*microseconds: int) -> Latencies:
    made = Latencies()
    for us in microseconds:
        made.note((us + 0.5) / 1e6)  # in the middle of the microsecond: seconds are no exact numbers
    return made


def test_nothing_counted() -> None:
    assert Latencies().summary() == {"p50_ms": None, "p90_ms": None, "p99_ms": None, "max_ms": None}


def test_nearest_rank() -> None:
    hundred = of(*range(1000, 101_000, 1000))
    assert hundred.summary() == {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "max_ms": 100.0}
    assert of(7).summary() == {"p50_ms": 0.007, "p90_ms": 0.007, "p99_ms": 0.007, "max_ms": 0.007}


def test_standard_deviation() -> None:
    assert Latencies().stddev_ms() is None
    assert of(7).stddev_ms() == 0
    assert of(1000, 3000).stddev_ms() == 1.0


@given(st.lists(st.integers(0, 100_000_000), min_size=1, max_size=20), st.integers(0, 20))
def test_processes_add_up_to_one(durations: list[int], cut: int) -> None:
    together = Latencies()
    for part in (durations[:cut], durations[cut:]):
        together.add_json(of(*part).to_json())
    assert together.summary() == of(*durations).summary()
    assert together.summary()["max_ms"] == max(durations) / 1e3
