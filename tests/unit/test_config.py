"""Settings: every source, who wins, what is refused and how it is named; ids that all servers share."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from paxos_rsm.config import (
    FRAME_OVERHEAD_BYTES,
    OPTIONS,
    ServerConfig,
    Tuning,
    load_config,
    member_id_of,
)
from paxos_rsm.errors import ConfigError

THREE = "n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2384"


def test_without_a_setting_it_is_a_cluster_of_one_with_etcds_ports() -> None:
    config = load_config({}, {})
    assert config == ServerConfig()
    assert config.name == "default"
    assert config.directory == Path("default.paxos")
    assert config.listen_client_urls == ("http://127.0.0.1:2379",)
    assert config.client_urls == ("http://127.0.0.1:2379",)
    assert config.members == {"default": "http://127.0.0.1:2380"}
    assert config.tuning.request_bytes_max == 1_572_864


def test_a_name_alone_is_a_cluster_of_one_of_that_name() -> None:
    config = load_config({"name": "n7"}, {})
    assert config.directory == Path("n7.paxos")
    assert config.members == {"n7": "http://127.0.0.1:2380"}


def test_flags_win_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('name = "file"\ndata-dir = "from-file"\ntick-ms = 10\nheartbeat_ms = 20\n')
    environ = {"PAXOS_RSM_NAME": "env", "PAXOS_RSM_DATA_DIR": "from-env", "PAXOS_RSM_ENDPOINTS": "a:1"}
    config = load_config({"name": "flag", "data_dir": None, "listen_client_urls": ()}, environ, file)
    assert config.name == "flag"
    assert config.data_dir == "from-env"
    assert config.tuning.tick_ms == 10
    assert config.tuning.heartbeat_ms == 20
    assert config.listen_client_urls == ("http://127.0.0.1:2379",)


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('name = "file"')
    assert load_config({}, {"PAXOS_RSM_CONFIG_FILE": str(file)}).name == "file"


def test_every_option_can_be_set_from_every_source(tmp_path: Path) -> None:
    examples: dict[str, Any] = {
        "name": "n1",
        "data_dir": "d",
        "listen_client_urls": ("http://127.0.0.1:1", "http://127.0.0.1:2"),
        "advertise_client_urls": ("http://127.0.0.1:3",),
        "listen_peer_urls": ("http://127.0.0.1:4",),
        "listen_http_urls": ("http://127.0.0.1:5",),
        "cors": ("https://console.example.org", "http://[::1]:8080"),
        "initial_advertise_peer_urls": ("http://127.0.0.1:2380",),
        "initial_cluster": THREE,
        "peer_dial_urls": "n2=http://127.0.0.1:9",
        "initial_cluster_token": "t",
        "initial_cluster_state": "existing",
        "machine": "package.module:Class",
        "log_level": "debug",
        "log_format": "json",
    }
    words: dict[str, Any] = {"auto_compaction_mode": "revision", "auto_compaction_retention": "0"}
    # Those of the store alone stay as they are: the example names another machine.
    tuning = words | {"quota_backend_bytes": 0}
    tuning |= {o.field: o.default + 1 for o in OPTIONS if o.tuning and o.field not in tuning}
    wanted = ServerConfig(**examples, tuning=Tuning(**tuning))
    values = examples | tuning
    assert set(values) == {option.field for option in OPTIONS}

    assert load_config(values, {}) == wanted
    texts = {
        option.env: ",".join(values[option.field]) if option.kind is tuple else str(values[option.field])
        for option in OPTIONS
    }
    assert load_config({}, texts) == wanted
    assert (
        load_config({name: texts[option.env] for option in OPTIONS for name in [option.field]}, {}) == wanted
    )
    file = tmp_path / "server.toml"
    lines = []
    for option in OPTIONS:
        value = values[option.field]
        lines.append(f"{option.flag} = {list(value) if isinstance(value, tuple) else value!r}")
    file.write_text("\n".join(lines))
    assert load_config({}, {}, file) == wanted


def test_options_have_etcds_flags_and_no_two_alike() -> None:
    flags = [option.flag for option in OPTIONS]
    assert len(set(flags)) == len(flags)
    etcd = (
        "name data-dir listen-client-urls advertise-client-urls listen-peer-urls initial-advertise-peer-urls"
    )
    etcd += " initial-cluster initial-cluster-token initial-cluster-state log-level heartbeat-interval"
    etcd += " election-timeout max-request-bytes"
    assert set(etcd.split()) <= set(flags)
    assert all(option.env == "PAXOS_RSM_" + option.flag.upper().replace("-", "_") for option in OPTIONS)
    assert all(option.description for option in OPTIONS)


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "words"),
    [
        ({"name": "a,b"}, {}, "", ["--name", "'a,b'", "letters"]),
        ({}, {"PAXOS_RSM_TICK_MS": "soon"}, "", ["environment variable PAXOS_RSM_TICK_MS", "'soon'"]),
        ({}, {}, "tick-ms = 'soon'", ["'tick-ms' in", "server.toml", "'soon'"]),
        ({}, {}, "tick-ms = 0", ["0 is not within 1..1000"]),
        ({}, {}, "tick-ms = true", ["True is not a whole number"]),
        ({}, {}, "tick-ms = 1.5", ["1.5 is not a whole number"]),
        ({}, {}, "colour = 'red'", ["server.toml", "no setting 'colour'"]),
        ({}, {}, "data-dir = 'a'\ndata_dir = 'b'", ["set twice"]),
        ({}, {}, "name = ", ["not a TOML file"]),
        ({}, {}, "name = " + "[" * 5_000, ["not a TOML file"]),  # found by fuzzing: a RecursionError
        ({}, {}, "name = " + "8" * 5_000, ["not a TOML file"]),  # by fuzzing: a ValueError
        ({}, {}, "name = 3", ["3 is not a text"]),
        ({}, {}, "listen-client-urls = 3", ["neither a text nor a list"]),
        ({}, {}, "listen-client-urls = [3]", ["neither a text nor a list"]),
        ({"nope": "x"}, {}, "", ["no setting 'nope'"]),
        ({"log_level": "loud"}, {}, "", ["--log-level", "'loud'", "debug, info, warning, error"]),
        ({"machine": "my machine"}, {}, "", ["--machine", "package.module:Class"]),
        ({"listen_client_urls": "127.0.0.1:2379"}, {}, "", ["--listen-client-urls", "http://"]),
        ({"listen_client_urls": "https://127.0.0.1:2379"}, {}, "", ["TLS"]),
        ({"listen_client_urls": "http://127.0.0.1:99999"}, {}, "", ["http://127.0.0.1:99999", "not a URL"]),
        ({"listen_client_urls": "http://a:1,http://a:1/"}, {}, "", ["a:1, a:1", "twice"]),
        ({"listen_client_urls": ","}, {}, "", ["--listen-client-urls is empty"]),
        ({"listen_client_urls": "http://127.0.0.1:2380"}, {}, "", ["both name 127.0.0.1:2380"]),
        (
            {"listen_http_urls": "http://127.0.0.1:2379"},
            {},
            "",
            ["--listen-http-urls both name 127.0.0.1:2379"],
        ),
        ({"cors": "example.org"}, {}, "", ["--cors", "'example.org' is not the origin of web pages"]),
        ({"cors": "*,http://example.org/"}, {}, "", ["--cors", "http://host:port"]),
        ({"watch_stall_ms": "0"}, {}, "", ["--watch-stall-ms", "within 100.."]),
        (
            {"listen_client_urls": "http://0.0.0.0:2379"},
            {},
            "",
            ["nobody can reach", "--advertise-client-urls"],
        ),
        (
            {"listen_peer_urls": "http://[::]:2380"},
            {},
            "",
            ["nobody can reach", "--initial-advertise-peer-urls"],
        ),
        ({"initial_cluster": THREE}, {}, "", ["--initial-cluster names n1, n2, n3", "--name default"]),
        ({"initial_cluster": "n1"}, {}, "", ["--initial-cluster", "'n1' is not name=URL"]),
        ({"initial_cluster": "a=http://h:1,a=http://h:2"}, {}, "", ["'a' is named twice"]),
        ({"peer_dial_urls": "n1"}, {}, "", ["--peer-dial-urls", "'n1' is not name=URL"]),
        (
            {"name": "n1", "initial_cluster": THREE, "peer_dial_urls": "n1=http://h:1"},
            {},
            "",
            ["--peer-dial-urls names n1", "this server itself"],
        ),
        ({"initial_cluster": "a=http://h:1,b=http://h:1"}, {}, "", ["share the peer address h:1"]),
        (
            {"name": "n1", "initial_cluster": THREE, "initial_advertise_peer_urls": "http://127.0.0.1:9"},
            {},
            "",
            ["n1=http://127.0.0.1:2380", "http://127.0.0.1:9", "must be the same"],
        ),
        ({"initial_advertise_peer_urls": "http://a:1,http://b:1"}, {}, "", ["more than one URL"]),
        ({"phase2_quorum": 2}, {}, "", ["--phase2-quorum 2", "1 members"]),
        ({"quota_backend_bytes": -2}, {}, "", ["--quota-backend-bytes", "-2 is not within"]),
        ({"auto_compaction_mode": "often"}, {}, "", ["--auto-compaction-mode", "periodic, revision"]),
        ({"auto_compaction_retention": "1d"}, {}, "", ["--auto-compaction-retention", "'1d'", "10m"]),
        (
            {"auto_compaction_mode": "revision", "auto_compaction_retention": "10m"},
            {},
            "",
            ["--auto-compaction-retention 10m", "--auto-compaction-mode is revision"],
        ),
        (
            {"machine": "m:C", "quota_backend_bytes": 5},
            {},
            "",
            ["--quota-backend-bytes", "--machine names another"],
        ),
        (
            {"machine": "m:C", "auto_compaction_retention": "1"},
            {},
            "",
            ["--auto-compaction-retention", "--machine names another"],
        ),
        ({"tick_ms": 60}, {}, "", ["--tick-ms 60", "--heartbeat-interval 50"]),
        ({"election_timeout_ms": 249}, {}, "", ["--election-timeout 249", "5 times"]),
        ({"read_lease_ms": 455}, {}, "", ["--read-lease-ms 455", "--election-timeout 500"]),
        ({"entry_bytes_max": 1_572_864}, {}, "", ["--entry-bytes-max", "--max-request-bytes"]),
        (
            {"pending_bytes_max": 2**20},
            {},
            "",
            ["--pending-bytes-max 1048576", "--entry-bytes-max 1638400"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_source(
    flags: dict[str, Any], environ: dict[str, str], toml: str, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError) as raised:
        load_config(flags, environ, file)
    for word in words:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        load_config({}, {}, tmp_path / "nowhere.toml")


def test_values_written_in_python_are_checked_as_they_are() -> None:
    with pytest.raises(ConfigError, match="--listen-client-urls: 'http://a:1' is not a tuple"):
        ServerConfig(listen_client_urls="http://a:1").validate()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--tick-ms: '3' is not a int"):
        Tuning(tick_ms="3").validate()  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        ServerConfig().name = "x"  # type: ignore[misc]


def test_every_member_computes_the_same_ids() -> None:
    backwards = ",".join(reversed(THREE.split(",")))
    configs = [
        ServerConfig(name="n1", initial_cluster=THREE),
        ServerConfig(name="n2", initial_cluster=backwards, data_dir="elsewhere"),
    ]
    for config in configs:
        config.validate()
    assert configs[0].cluster_id == configs[1].cluster_id
    assert configs[0].member_ids == configs[1].member_ids
    assert configs[0].member_id == configs[0].member_ids["n1"]
    assert len(set(configs[0].member_ids.values())) == 3
    assert all(0 < each < 2**63 for each in [configs[0].cluster_id, *configs[0].member_ids.values()])


def test_ids_are_pinned_so_that_no_version_changes_them() -> None:
    config = ServerConfig(name="n1", initial_cluster=THREE)
    assert (config.cluster_id, config.member_id) == (4_933_328_591_503_163_340, 3_084_389_598_858_115_927)


def test_a_token_a_name_or_an_address_makes_another_id() -> None:
    config = ServerConfig(name="n1", initial_cluster=THREE)
    other = replace(config, initial_cluster_token="b")
    moved = replace(config, initial_cluster=THREE.replace("2384", "2386"))
    restored = [replace(config, restored_from=each).cluster_id for each in ("ab", "cd")]
    assert len({config.cluster_id, other.cluster_id, moved.cluster_id, *restored}) == 5
    assert config.member_id == moved.member_id != other.member_id
    assert member_id_of("a", "bc", "t") != member_id_of("ab", "c", "t")


def test_ticks_and_frames_follow_from_the_settings() -> None:
    assert Tuning(read_lease_ms=300, read_lease_drift_percent=15).read_hold_us == 345_000
    tuning = Tuning(tick_ms=30, heartbeat_ms=50, election_timeout_ms=500)
    assert (tuning.heartbeat_ticks, tuning.election_timeout_ticks) == (2, 17)
    assert tuning.frame_bytes_max == 1_572_864 + FRAME_OVERHEAD_BYTES


@pytest.mark.parametrize(("given", "quota_bytes"), [(0, 2 << 30), (-1, 0), (4_096, 4_096)])
def test_the_quota_is_etcds_where_none_is_given_and_may_be_none(given: int, quota_bytes: int) -> None:
    assert Tuning(quota_backend_bytes=given).quota_bytes == quota_bytes


# ---- a cluster that runs ---------------------------------------------------------------------------------


def test_a_server_that_joins_has_the_ids_that_it_was_given() -> None:
    config = ServerConfig(
        name="n3", initial_cluster=THREE, initial_cluster_state="existing", tuning=Tuning(phase2_quorum=9)
    )
    joined = config.joined_as(5, 6)
    joined.validate()
    assert config.joins
    assert not replace(config, initial_cluster_state="new").joins
    assert (joined.cluster_id, joined.member_id) == (5, 6)
    assert joined.member_ids == {"n1": 0, "n2": 0, "n3": 6}
    assert (joined.members, joined.peer_url) == (config.members, config.peer_url)
    assert config.cluster_id != 5
    with pytest.raises(ConfigError, match="--phase2-quorum 9"):
        replace(config, initial_cluster_state="new").validate()


def test_whom_a_server_that_joins_may_ask() -> None:
    config = ServerConfig(name="n2", initial_cluster=THREE, peer_dial_urls="n3=http://h:9")
    assert config.urls_to_ask == [config.members["n1"], "http://h:9"]
    assert ServerConfig().urls_to_ask == []


def test_where_a_member_is_dialed() -> None:
    config = ServerConfig(name="n2", initial_cluster=THREE, peer_dial_urls="n3=http://h:9,n4=http://h:10")
    config.validate()
    there = config.members["n3"]
    assert config.dial_url("n3", there) == config.dial_url("n3", f"{there}/") == "http://h:9"
    assert config.dial_url("n3", "http://h:11") == "http://h:11"  # it has moved since
    assert config.dial_url("n1", config.members["n1"]) == config.members["n1"]
    assert config.dial_url("n4", "http://h:12") == "http://h:10"  # was added since
    assert config.dial_url("n5", "http://h:13") == "http://h:13"
