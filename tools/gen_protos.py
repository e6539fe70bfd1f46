"""Makes paxos_rsm/_proto/ from protos/paxos_rsm/v1/: messages, gRPC stubs and the types of both.

    python tools/gen_protos.py            write the files, remove those whose proto is gone
    python tools/gen_protos.py --check    write nothing; exit 1 and name every file that differs

Both forms generate the whole set into a temporary directory first, so a proto that does not compile leaves
the package as it was. protoc and its plugins come from the virtual environment whose Python runs this script
(grpcio-tools and mypy-protobuf, pinned in pyproject.toml): the output depends on nothing but the protos.

protoc lays Python modules out by the protos' path, `paxos_rsm/v1/x_pb2.py`, and imports them so. The modules
live in `paxos_rsm/_proto/` instead; three forms are rewritten for that, and only where they name one of our
own protos:

    from paxos_rsm.v1 import x_pb2 as y     imports of one generated module by another
    from paxos_rsm.v1.x_pb2 import *        the same, for `import public`
    'paxos_rsm.v1.x_pb2'                    the `__module__` of the message classes

The serialized descriptors keep their names: package `paxos_rsm.v1`, file `paxos_rsm/v1/x.proto`.
"""

import argparse
import difflib
import importlib.resources
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "protos"
PROTO_PACKAGE = "paxos_rsm/v1"
OUT_DIR = ROOT / "paxos_rsm" / "_proto"
OUT_MODULE = "paxos_rsm._proto"

# The first lines of a drift are enough to see what it is; the whole of a changed descriptor is noise.
DIFF_LINES_MAX = 12


class GenerationError(Exception):
    """protoc could not be run or refused a proto; the message is what to show."""


def find_protos(proto_root: Path) -> list[str]:
    """Proto paths as protoc and the descriptor pool name them, sorted: `paxos_rsm/v1/admin.proto`, ..."""
    paths = proto_root.glob(f"{PROTO_PACKAGE}/*.proto")
    return sorted(path.relative_to(proto_root).as_posix() for path in paths)


def plugin_path(name: str) -> Path:
    """The protoc plugin that stands beside this Python; one from PATH may be of another version."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise GenerationError(f"{path} is missing: run `make setup`")
    return path


def run_protoc(proto_root: Path, protos: list[str], out: Path) -> None:
    """Generates everything for `protos` below `out`, laid out by proto path."""
    # The well-known types (google/protobuf/*.proto) ship inside grpcio-tools.
    try:
        well_known = importlib.resources.files("grpc_tools") / "_proto"
    except ModuleNotFoundError as error:
        raise GenerationError("grpcio-tools is missing: run `make setup`") from error
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={proto_root}",
        f"--proto_path={well_known}",
        f"--plugin=protoc-gen-mypy={plugin_path('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={plugin_path('protoc-gen-mypy_grpc')}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos,
    ]
    # A fixed hash seed: no plugin may order its output by the hash of a string.
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise GenerationError(f"protoc refused the protos:\n{done.stderr.strip()}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)  # protoc's warnings, such as an unused import


def rewrite_imports(text: str, modules: set[str]) -> str:
    """`text` with every reference to our own generated `modules` (`x_pb2`, ...) moved to `OUT_MODULE`."""
    module = PROTO_PACKAGE.replace("/", r"\.")
    names = "|".join(sorted(map(re.escape, modules)))
    text = re.sub(rf"^from {module} import ({names})\b", rf"from {OUT_MODULE} import \1", text, flags=re.M)
    text = re.sub(rf"^from {module}\.({names}) import\b", rf"from {OUT_MODULE}.\1 import", text, flags=re.M)
    return re.sub(rf"(['\"]){module}\.({names})\1", rf"\1{OUT_MODULE}.\2\1", text)


def generate(proto_root: Path) -> dict[str, str]:
    """File name -> text of everything that belongs into `OUT_DIR`, beside its hand-written `__init__.py`."""
    protos = find_protos(proto_root)
    if not protos:
        return {}
    modules = {Path(proto).stem + "_pb2" for proto in protos}
    generated: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="paxos-rsm-gen-") as scratch:
        run_protoc(proto_root, protos, Path(scratch))
        for path in sorted((Path(scratch) / PROTO_PACKAGE).iterdir()):
            text = path.read_text(encoding="utf-8")
            # A proto without a service gets an empty stub module all the same; it would only mislead.
            if path.stem.endswith("_pb2_grpc") and "_to_server(" not in text:
                continue
            generated[path.name] = rewrite_imports(text, modules)
    return generated


def committed(out_dir: Path) -> dict[str, str]:
    """File name -> text of the generated files that stand in `out_dir` now."""
    files = [path for pattern in ("*_pb2*.py", "*_pb2*.pyi") for path in out_dir.glob(pattern)]
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(files)}


def describe_drift(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """One paragraph for each file that differs, with the first lines of the difference."""
    report = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            report.append(f"{name}: missing")
        elif name not in wanted:
            report.append(f"{name}: left over, its proto (or the service in it) is gone")
        elif wanted[name] != found[name]:
            report.append("\n    ".join([f"{name}: differs", *first_differences(found[name], wanted[name])]))
    return report


def first_differences(found: str, wanted: str) -> list[str]:
    """The first lines of a unified diff, each cut to a readable width, and how many lines were left out."""
    unified = difflib.unified_diff
    lines = list(unified(found.splitlines(), wanted.splitlines(), "committed", "wanted", n=0, lineterm=""))
    shown = [line if len(line) <= 140 else line[:137] + "..." for line in lines[:DIFF_LINES_MAX]]
    return shown if len(lines) == len(shown) else [*shown, f"({len(lines) - len(shown)} more lines)"]


def write(wanted: dict[str, str], found: dict[str, str], out_dir: Path) -> int:
    """Makes `out_dir` hold `wanted` and returns how many files changed; the others keep their time stamp."""
    out_dir.mkdir(parents=True, exist_ok=True)
    changed = [name for name, text in wanted.items() if found.get(name) != text]
    for name in changed:
        # By a rename: a process that imports the package meanwhile sees the old file or the new one.
        scratch = out_dir / f".{name}.tmp"
        scratch.write_text(wanted[name], encoding="utf-8", newline="\n")
        scratch.replace(out_dir / name)
    stale = found.keys() - wanted.keys()
    for name in stale:
        (out_dir / name).unlink()
    return len(changed) + len(stale)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0 done or no drift, 1 drift or an error."""
    parser = argparse.ArgumentParser(description="Generate paxos_rsm/_proto/ from protos/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on a difference")
    parser.add_argument("--proto-root", type=Path, default=PROTO_ROOT, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT_DIR, help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        wanted = generate(options.proto_root.resolve())
    except GenerationError as error:
        print(f"gen_protos: {error}", file=sys.stderr)
        return 1
    found = committed(options.out)
    if options.check:
        drift = describe_drift(wanted, found)
        if drift:
            print("\n".join(drift), file=sys.stderr)
            print(f"gen_protos: {len(drift)} files have drifted: run `make gen` and commit", file=sys.stderr)
            return 1
        print(f"gen_protos: {len(wanted)} generated files agree with the protos")
        return 0
    changed = write(wanted, found, options.out)
    print(f"gen_protos: {len(wanted)} files, {changed} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
