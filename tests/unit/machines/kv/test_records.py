from paxos_rsm.machines.kv.records import PACKED, RECORD_BYTES, Record, bytes_of, mod_of, packed

ONE: Record = (b"key", 2, 3, 2, b"value", 7)
DELETION: Record = (b"key", 0, 4, 0, b"", 0)


def test_a_record_counts_for_its_key_its_value_and_a_constant() -> None:
    assert bytes_of(ONE) == 8 + RECORD_BYTES
    assert bytes_of(DELETION) == 3 + RECORD_BYTES
    assert mod_of(ONE) == 3


def test_records_are_packed_end_to_end() -> None:
    assert packed([]) == b""
    both = packed([ONE, DELETION])
    assert PACKED.unpack_from(both) == (3, 5, 2, 3, 2, 7)
    assert both[PACKED.size :].startswith(b"keyvalue")
    assert both == packed([ONE]) + packed([DELETION])
