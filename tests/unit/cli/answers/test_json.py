import json
from typing import Any

import pytest
from google.protobuf.message import Message

from paxos_rsm._proto import kv_pb2 as pb
from paxos_rsm.cli.answers.json import as_json, line
from tests.unit.cli.answers import samples

HEADER = '"cluster_id":324952591200643719,"member_id":3319814642761637952,'


def without_text(shown: Any) -> Any:
    """What is ours alone, taken out again."""
    if isinstance(shown, dict):
        return {name: without_text(value) for name, value in shown.items() if not name.endswith("_text")}
    return [without_text(each) for each in shown] if isinstance(shown, list) else shown


# What etcd's command, version 3.4, printed for the same responses.
PRINTED = [
    (
        samples.RANGE,
        '{"header":{H"revision":14,"raft_term":2},"kvs":[{"key":"YQ==","create_revision":6,"mod_revision":13,"version":3,'
        '"value":"Mg=="},{"key":"Yg==","create_revision":14,"mod_revision":14,"version":1,"value":"eCIK/wHDqQ=="}],'
        '"count":2}',
    ),
    (
        samples.LIMITED,
        '{"header":{H"revision":14,"raft_term":2},"kvs":[{"key":"YQ==","create_revision":6,"mod_revision":13,"version":3,'
        '"value":"Mg=="}],"more":true,"count":3}',
    ),
    (samples.NOTHING, '{"header":{H"revision":14,"raft_term":2}}'),
    (samples.PUT, '{"header":{H"revision":13,"raft_term":2}}'),
    (
        samples.PUT_PREV,
        '{"header":{H"revision":13,"raft_term":2},"prev_kv":{"key":"YQ==","create_revision":6,"mod_revision":13,'
        '"version":3,"value":"Mg=="}}',
    ),
    (
        samples.DELETED,
        '{"header":{H"revision":15,"raft_term":2},"deleted":1,"prev_kvs":[{"key":"YQ==","create_revision":6,'
        '"mod_revision":13,"version":3,"value":"Mg=="}]}',
    ),
    (
        samples.TXN,
        '{"header":{H"revision":16,"raft_term":2},"responses":[{"Response":{"ResponsePut":{"header":{"revision":16}}}},'
        '{"Response":{"ResponseRange":{"header":{"revision":16},"kvs":[{"key":"YQ==","create_revision":6,'
        '"mod_revision":13,"version":3,"value":"Mg=="}],"count":1}}},{"Response":{"ResponseDeleteRange":{"header":'
        '{"revision":16},"deleted":1,"prev_kvs":[{"key":"Yg==","create_revision":14,"mod_revision":14,"version":1,'
        '"value":"eCIK/wHDqQ=="}]}}}]}',
    ),
    (
        samples.WATCHED,
        '{"Header":{H"revision":21,"raft_term":2},"Events":[{"kv":{"key":"YQ==","create_revision":6,"mod_revision":13,'
        '"version":3,"value":"Mg=="}},{"type":1,"kv":{"key":"YQ==","mod_revision":21},"prev_kv":{"key":"YQ==",'
        '"create_revision":6,"mod_revision":13,"version":3,"value":"Mg=="}}],"CompactRevision":0,"Canceled":false,'
        '"Created":false}',
    ),
    (samples.GRANTED, '{H"revision":17,"raft_term":2,"ID":2324035562372581424,"TTL":100,"Error":""}'),
    (samples.REVOKED, '{"header":{H"revision":17,"raft_term":2}}'),
    (samples.KEPT_ALIVE, '{H"revision":18,"raft_term":2,"ID":2324035562372581424,"TTL":100}'),
    (
        samples.LEFT,
        '{H"revision":18,"raft_term":2,"id":2324035562372581424,"ttl":99,"granted-ttl":100,"keys":["bGE="]}',
    ),
    (
        samples.GONE,
        '{H"revision":19,"raft_term":2,"id":2324035562372581424,"ttl":-1,"granted-ttl":0,"keys":null}',
    ),
    (samples.LEASES, '{H"revision":17,"raft_term":2,"leases":[{"id":2324035562372581424}]}'),
    (
        samples.MEMBERS,
        '{"header":{H"raft_term":2},"members":[{"ID":3319814642761637952,"name":"e1","peerURLs":'
        '["http://127.0.0.1:23800"],"clientURLs":["http://127.0.0.1:23790"]}]}',
    ),
]


@pytest.mark.parametrize(("answer", "output"), PRINTED, ids=[type(each).__name__ for each, _ in PRINTED])
def test_is_what_etcds_command_prints_but_for_the_text(answer: Message, output: str) -> None:
    shown = json.dumps(without_text(json.loads(line(answer))), separators=(",", ":"))
    assert shown == output.replace("{H", "{" + HEADER)


def test_text_stands_beside_base64_where_it_is_text() -> None:
    shown = as_json(samples.RANGE)["kvs"]
    assert (shown[0]["key_text"], shown[0]["value_text"]) == ("a", "2")
    assert (shown[1]["key_text"], "value_text" in shown[1]) == ("b", False)
    assert '"value_text":"ü"'.encode() in line(pb.RangeResponse(kvs=[pb.KeyValue(value="ü".encode())]))


def test_a_transaction_within_a_transaction() -> None:
    inner = pb.ResponseOp(response_txn=pb.TxnResponse(succeeded=True))
    assert as_json(pb.TxnResponse(responses=[inner])) == {
        "responses": [{"Response": {"ResponseTxn": {"succeeded": True}}}]
    }


def test_further_members_come_last() -> None:
    assert json.loads(line(samples.NOTHING, applied_slot=7))["applied_slot"] == 7
