"""The stub generator: what it makes of two small protos, and that drift of any kind is told."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "gen_protos.py"

# The descriptor pool is one for the process, so these names must differ from those of the real protos.
LEAF = 'syntax = "proto3";\npackage paxos_rsm.v1.gentest;\nmessage Leaf { bytes data = 1; }\n'
ROOT = """syntax = "proto3";
package paxos_rsm.v1.gentest;
import "paxos_rsm/v1/gentest_leaf.proto";
message Tree { repeated Leaf leaves = 1; }
service Wood { rpc Grow(stream Leaf) returns (Tree); }
"""


@pytest.fixture(scope="module")
def gen_protos() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_protos", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def proto_root(tmp_path: Path) -> Path:
    folder = tmp_path / "protos" / "paxos_rsm" / "v1"
    folder.mkdir(parents=True)
    (folder / "gentest_leaf.proto").write_text(LEAF)
    (folder / "gentest_root.proto").write_text(ROOT)
    return tmp_path / "protos"


def run(module: ModuleType, proto_root: Path, *flags: str) -> int:
    status = module.main(["--proto-root", str(proto_root), "--out", str(proto_root.parent / "out"), *flags])
    assert isinstance(status, int)
    return status


def test_the_files_of_each_proto(gen_protos: ModuleType, proto_root: Path) -> None:
    assert run(gen_protos, proto_root) == 0
    out = proto_root.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "gentest_leaf_pb2.py",  # no service, hence no _grpc
        "gentest_leaf_pb2.pyi",
        "gentest_root_pb2.py",
        "gentest_root_pb2.pyi",
        "gentest_root_pb2_grpc.py",
        "gentest_root_pb2_grpc.pyi",
    ]


def test_modules_import_each_other_from_the_package(gen_protos: ModuleType, proto_root: Path) -> None:
    run(gen_protos, proto_root)
    out = proto_root.parent / "out"
    for path in out.iterdir():
        assert "from paxos_rsm.v1" not in path.read_text()
    for name in ("gentest_root_pb2.py", "gentest_root_pb2.pyi", "gentest_root_pb2_grpc.pyi"):
        assert "from paxos_rsm._proto import gentest_leaf_pb2 as " in (out / name).read_text()


def test_the_generated_code_runs_under_its_wire_name(
    gen_protos: ModuleType, proto_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(gen_protos, proto_root)
    import paxos_rsm._proto as package

    monkeypatch.setattr(package, "__path__", [*package.__path__, str(proto_root.parent / "out")])
    for name in ("gentest_leaf_pb2", "gentest_root_pb2", "gentest_root_pb2_grpc"):
        monkeypatch.delitem(sys.modules, f"paxos_rsm._proto.{name}", raising=False)
    root = importlib.import_module("paxos_rsm._proto.gentest_root_pb2")
    stubs = importlib.import_module("paxos_rsm._proto.gentest_root_pb2_grpc")

    tree = root.Tree.FromString(root.Tree(leaves=[{"data": b"x"}]).SerializeToString())
    assert tree.leaves[0].data == b"x"
    assert root.Tree.__module__ == "paxos_rsm._proto.gentest_root_pb2"
    assert root.DESCRIPTOR.name == "paxos_rsm/v1/gentest_root.proto"
    assert root.Tree.DESCRIPTOR.full_name == "paxos_rsm.v1.gentest.Tree"
    assert hasattr(stubs, "WoodServicer")


def test_no_drift_right_after(
    gen_protos: ModuleType, proto_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(gen_protos, proto_root)
    before = {path: path.stat().st_mtime_ns for path in (proto_root.parent / "out").iterdir()}
    assert run(gen_protos, proto_root, "--check") == 0
    assert run(gen_protos, proto_root) == 0
    assert "0 changed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_drift_is_told_and_nothing_written(
    gen_protos: ModuleType, proto_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(gen_protos, proto_root)
    out = proto_root.parent / "out"
    folder = proto_root / "paxos_rsm" / "v1"
    (folder / "gentest_root.proto").unlink()
    (folder / "gentest_leaf.proto").write_text(LEAF.replace("data = 1", "data = 2"))
    (out / "gentest_leaf_pb2.pyi").unlink()
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    assert run(gen_protos, proto_root, "--check") == 1
    told = capsys.readouterr().err
    assert "gentest_leaf_pb2.py: differs" in told
    assert "gentest_leaf_pb2.pyi: missing" in told
    assert "gentest_root_pb2_grpc.py: left over" in told
    assert "run `make gen`" in told
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    assert run(gen_protos, proto_root) == 0
    assert run(gen_protos, proto_root, "--check") == 0


def test_a_broken_proto_leaves_the_package_as_it_was(
    gen_protos: ModuleType, proto_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(gen_protos, proto_root)
    out = proto_root.parent / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (proto_root / "paxos_rsm" / "v1" / "gentest_leaf.proto").write_text("mess")
    assert run(gen_protos, proto_root) == 1
    assert "gentest_leaf.proto:1:1" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
