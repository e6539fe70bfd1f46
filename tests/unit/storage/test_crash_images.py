"""Crash images of a data directory: a slice here, all 10,000 in the long form and with ``make crash-images``."""

import os
import sys

import pytest

from paxos_rsm.paxos.ready import WriteCompacted
from paxos_rsm.paxos.types import NO_BALLOT
from paxos_rsm.storage import segments, start
from paxos_rsm.storage.files import FileSystem
from paxos_rsm.storage.start import LogStart
from tests.forms import of_form
from tests.unit.storage import crash_images

IMAGES = int(os.environ.get("CRASH_IMAGES", of_form(2_500, 10_000)))


def test_every_crash_image_starts_and_has_what_was_acknowledged() -> None:
    outcomes = crash_images.check_all(IMAGES)
    sys.stdout.write(f"{outcomes.total()} images of {crash_images.changes()} changes: {dict(outcomes)}\n")
    assert outcomes.total() >= IMAGES
    assert outcomes["started at the second try"] > IMAGES // 20


def test_every_damaged_image_starts_or_names_the_file() -> None:
    outcomes = crash_images.damaged(IMAGES // 4)
    sys.stdout.write(f"{outcomes.total()} damaged images: {dict(outcomes)}\n")
    assert min(outcomes[each] for each in ("refused", "marked unreadable", "snapshot damaged", "started")) > 0


# ---- that the images would notice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "part"),
    [
        ("fdatasync", "/log/0"),
        ("fdatasync", "/log/start"),
        ("fdatasync", ".snapshot.new"),
        ("fdatasync", ".part"),
        ("fdatasync", "/identity"),
        ("sync_directory", "/n1/log"),
        ("sync_directory", "/n1/snapshots"),
    ],
)
def test_a_sync_that_is_left_out_is_found(call: str, part: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        crash_images.check_all(1, lambda done, path: done == call and part in path)
    assert "before change" in "".join(caught.value.__notes__)


@pytest.mark.parametrize(
    "bug", ["forgets the promise", "drops one segment too many", "says less than it drops"]
)
def test_a_wrong_start_of_the_log_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(files: FileSystem, directory: str, right: LogStart) -> None:
        wrong = {
            "forgets the promise": right._replace(promised=NO_BALLOT),
            "drops one segment too many": right._replace(first_segment=right.first_segment + 1),
            "says less than it drops": right._replace(compacted_through=max(1, right.compacted_through - 1)),
        }
        start.write_start(files, directory, wrong[bug])

    monkeypatch.setattr(segments, "write_start", write)
    with pytest.raises(Exception, match=r"."):
        crash_images.check_all(1)


def test_a_log_that_is_dropped_before_its_snapshot_is_durable_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def take(story: crash_images.Story, slot: int) -> None:
        story.write(WriteCompacted(slot))
        right(story, slot)

    right = crash_images.Story.take
    monkeypatch.setattr(crash_images.Story, "take", take)
    with pytest.raises(AssertionError, match="a gap between the snapshot and the log"):
        crash_images.check_all(1)
