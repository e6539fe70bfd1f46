"""Another day is there inside, in every clock that was to be moved, and nowhere else."""

import datetime
import subprocess
import sys
import time

import pytest

from paxos_rsm.testing.another_day import OFFSET_S, another_day

WHOLE = """
import time, datetime
from paxos_rsm.testing.another_day import OFFSET_S, another_day
before, monotonic = time.time(), time.monotonic()
real = datetime.datetime.now()
with another_day(whole=True):
    from datetime import date, datetime as later
    assert later.now() - real >= __import__("datetime").timedelta(seconds=OFFSET_S - 1)
    assert date.today().year > real.year
    assert later.utcnow().year > real.year and later.today().year > real.year
    assert isinstance(real, later) and isinstance(later.now(), later)
    assert later.now(__import__("datetime").UTC).tzinfo is not None
    assert time.monotonic() - monotonic >= OFFSET_S
    assert time.gmtime().tm_year > real.year and time.gmtime(0).tm_year == 1970
    assert time.time_ns() // 10**9 - before >= OFFSET_S - 1
assert time.time() - before < OFFSET_S / 2 and datetime.datetime.now() < real + datetime.timedelta(days=100)
print("well")
"""


def test_the_calendar_moves_and_the_time_outs_do_not() -> None:
    before, monotonic = time.time(), time.monotonic()
    with another_day():
        assert time.time() - before >= OFFSET_S
        assert time.time_ns() - before * 10**9 >= OFFSET_S * 10**9 - 1_000_000
        assert time.monotonic() - monotonic < OFFSET_S / 2
    assert time.time() - before < OFFSET_S / 2


def test_it_is_over_after_an_error() -> None:
    real = time.time
    with pytest.raises(KeyError), another_day():
        raise KeyError
    assert time.time is real


def test_another_day_is_another_date_in_every_part() -> None:
    today = datetime.datetime(2026, 3, 4, 5, 6, 7)
    then = today + datetime.timedelta(seconds=OFFSET_S)
    for part in ("year", "month", "day", "hour", "minute"):
        assert getattr(then, part) != getattr(today, part)
    assert then.weekday() != today.weekday()


def test_everything_moves_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", WHOLE], capture_output=True, text=True, check=False)
    assert done.stdout == "well\n", done.stderr
