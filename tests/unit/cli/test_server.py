"""``server``: flags reach load_config, and its sentences the user; the server itself is another's to test."""

import os
import signal
import sys
import types
from pathlib import Path

import pytest

from paxos_rsm.cli import server as module
from paxos_rsm.config import OPTIONS, ServerConfig
from tests.unit.cli.helpers import run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """What run_server was given, instead of running one."""
    configs: list[ServerConfig] = []

    def run_server(config: ServerConfig) -> int:
        configs.append(config)
        return 3 if config.name == "fails" else 0

    fake = types.ModuleType("paxos_rsm.server.app")
    vars(fake)["run_server"] = run_server
    monkeypatch.setitem(sys.modules, "paxos_rsm.server.app", fake)
    for option in OPTIONS:
        monkeypatch.delenv(option.env, raising=False)
    return configs


def test_no_flag_is_a_cluster_of_one(served: list[ServerConfig]) -> None:
    assert run("server").exit_code == 0
    assert served == [ServerConfig()]


def test_every_setting_has_its_flag() -> None:
    flags = {flag for param in module.server.params for flag in param.opts}
    assert {f"--{option.flag}" for option in OPTIONS} <= flags


def test_flags_of_etcd(served: list[ServerConfig]) -> None:
    cluster = "n1=http://127.0.0.1:2380,n2=http://127.0.0.1:2382,n3=http://127.0.0.1:2384"
    result = run(
        "server",
        *("--name", "n2", "--data-dir", "d2"),
        *("--listen-client-urls", "http://127.0.0.1:2381,http://[::1]:2381"),
        *("--listen-peer-urls", "http://127.0.0.1:2382", "--initial-cluster", cluster),
        *("--heartbeat-interval", "30", "--log-level", "debug"),
    )
    assert result.exit_code == 0, result.stderr
    config = served[0]
    assert (config.name, config.data_dir, config.initial_cluster) == ("n2", "d2", cluster)
    assert config.listen_client_urls == ("http://127.0.0.1:2381", "http://[::1]:2381")
    assert (config.tuning.heartbeat_ms, config.log_level) == (30, "debug")


def test_flag_over_environment_over_file(served: list[ServerConfig], tmp_path: Path) -> None:
    file = tmp_path / "n.toml"
    file.write_text('name = "file"\ndata-dir = "file"\nlog-level = "error"\n')
    env = {"PAXOS_RSM_NAME": "env", "PAXOS_RSM_DATA_DIR": "env"}
    assert run("server", "--config-file", str(file), "--name", "flag", env=env).exit_code == 0
    assert (served[0].name, served[0].data_dir, served[0].log_level) == ("flag", "env", "error")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--name", "a b"], "--name: 'a b' cannot be a name"),
        (["--listen-client-urls", "127.0.0.1:2379"], "--listen-client-urls: "),
        (["--initial-cluster", "n2=http://127.0.0.1:2380"], "not this member, --name default"),
        (["--yes"], "--yes goes with --force-new-cluster"),
        (["--config-file", "no/such.toml"], "cannot read the configuration file no/such.toml"),
    ],
)
def test_what_makes_no_sense_is_bad_usage(served: list[ServerConfig], line: list[str], words: str) -> None:
    result = run("server", *line)
    assert result.exit_code == 128
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not served


def test_the_server_decides_the_exit_code(served: list[ServerConfig]) -> None:
    assert run("server", "--name", "fails").exit_code == 3


def test_end_of_standard_input_ends_a_server_that_belongs_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    reads = iter([b"anything", b""])
    monkeypatch.setattr(os, "read", lambda fd, count: next(reads))
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))
    module._end_with_stdin()
    assert signals == [(os.getpid(), signal.SIGTERM)]
