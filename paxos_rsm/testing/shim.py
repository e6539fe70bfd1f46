"""Faults of the disk and the clock of one running server: a library that is preloaded into its process.

::

    cluster = LocalCluster(shim=True)
    cluster["n1"].faults.sync_errors(1)          # the next sync fails, once
    cluster["n2"].faults.sync_delay_ms(2_000)    # and here each takes two seconds longer
    cluster["n3"].faults.clock_offset_s(3600)    # here it is an hour later
    cluster["n3"].faults.clear()

``shim.c`` says what the library does and does not do; it is compiled where it is first needed, with ``cc``, into the
user's cache directory, and found there afterwards. What it is to do stands in a small file that this process and the
server have both mapped: a change is in force from the server's next call on, and stays over a restart of the server.
The faults of the disk concern its data directory only.

It needs Linux, a C compiler, and servers that are not linked statically; where one is missing,
:class:`paxos_rsm.testing.errors.FaultUnavailable` says which.
"""

import errno
import hashlib
import mmap
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from paxos_rsm.testing.errors import FaultUnavailable, LocalClusterError

__all__ = ["ServerFaults", "cache_directory", "preload_library"]

SOURCE = Path(__file__).with_name("shim.c")
COMPILERS = ("cc", "gcc", "clang")
COMPILE_TIMEOUT_S = 60.0

# The fields of the control file, each a 64-bit integer: the same list as in shim.c.
MAGIC, SYNC_ERRORS, SYNC_ERRNO, SYNC_DELAY_MS, SPACE, CLOCK_OFFSET_NS, WRITE_ERRORS = range(7)
LOADED_PID, SYNCS, SYNCS_FAILED, WRITES_REFUSED, SYNCS_DELAYED, SYNCS_AT_FAILURE, CLOCKS_SHIFTED = range(
    16, 23
)
FIELDS = 64
MAGIC_VALUE = 0x70617873686D31
SPACE_PLENTY, SPACE_NONE, SPACE_GROWTH = range(3)

_FIELD = struct.Struct("=q")


class ServerFaults:
    """What the shim of one server is told, and tells. Every method takes effect at once."""

    def __init__(self, path: Path) -> None:
        """``path``: the control file, made here."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        size = FIELDS * _FIELD.size
        with path.open("w+b") as file:
            file.write(bytes(size))
            file.flush()
            self._fields = mmap.mmap(file.fileno(), size)
        self._put(SYNC_ERRNO, errno.EIO)
        self._put(MAGIC, MAGIC_VALUE)

    def environment(self, library: Path, data_dir: Path) -> dict[str, str]:
        """The variables that have a process load the library and listen to this file."""
        before = os.environ.get("LD_PRELOAD")
        return {
            "LD_PRELOAD": f"{library}:{before}" if before else str(library),
            "PAXOS_RSM_SHIM": str(self.path.resolve()),
            "PAXOS_RSM_SHIM_DIRECTORY": str(data_dir.resolve()),
        }

    # ---- what is to go wrong -----------------------------------------------------------------------------

    def sync_errors(self, count: int, number: int = errno.EIO) -> None:
        """The next ``count`` syncs fail with this errno; what was written stays as it is. 0: none."""
        self._put(SYNC_ERRNO, number)
        self._put(SYNC_ERRORS, count)

    def sync_delay_ms(self, delay_ms: int) -> None:
        """Every sync takes so much longer; one that waits already ends when this is lowered. 0: none."""
        self._put(SYNC_DELAY_MS, delay_ms)

    def write_errors(self, count: int) -> None:
        """The next ``count`` writes and allocations fail with EIO. 0: none."""
        self._put(WRITE_ERRORS, count)

    def no_space(self, on: bool, *, growth_only: bool = False) -> None:
        """Writes and allocations fail with ENOSPC; with ``growth_only`` those alone that make a file longer.

        The latter is what a full disk does to a log whose space was allocated ahead.
        """
        self._put(SPACE, (SPACE_GROWTH if growth_only else SPACE_NONE) if on else SPACE_PLENTY)

    def clock_offset_s(self, offset_s: float) -> None:
        """The wall clock is off by so much, as from now. The monotonic one is not."""
        self._put(CLOCK_OFFSET_NS, round(offset_s * 1e9))

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        for which in (SYNC_ERRORS, SYNC_DELAY_MS, SPACE, CLOCK_OFFSET_NS, WRITE_ERRORS):
            self._put(which, 0)

    # ---- what the server's side tells --------------------------------------------------------------------

    @property
    def loaded_pid(self) -> int | None:
        """The last process that has loaded the library and found this file; None where none did."""
        return self._get(LOADED_PID) or None

    @property
    def syncs(self) -> int:
        """Begun so far in the data directory, failed ones included."""
        return self._get(SYNCS)

    @property
    def syncs_failed(self) -> int:
        """How often a sync was made to fail."""
        return self._get(SYNCS_FAILED)

    @property
    def syncs_at_failure(self) -> int:
        """What :attr:`syncs` was when the last sync was made to fail: more since then is a server that tried again."""
        return self._get(SYNCS_AT_FAILURE)

    @property
    def syncs_delayed(self) -> int:
        """How many syncs that take longer have begun."""
        return self._get(SYNCS_DELAYED)

    @property
    def writes_refused(self) -> int:
        """How many writes or allocations were made to fail."""
        return self._get(WRITES_REFUSED)

    @property
    def clocks_shifted(self) -> int:
        """How often the wall clock was read while it was off."""
        return self._get(CLOCKS_SHIFTED)

    def check_loaded(self, pid: int | None) -> None:
        """Raises LocalClusterError unless the process ``pid`` runs under the library."""
        if pid is None or self.loaded_pid != pid:
            raise LocalClusterError(
                f"process {pid} has not loaded the shim, hence none of its faults: is it linked statically, or "
                "does it drop LD_PRELOAD?"
            )

    def close(self) -> None:
        """Gives the mapping back; the file stays. Closing twice is allowed."""
        self._fields.close()

    def _put(self, which: int, value: int) -> None:
        # Eight aligned bytes in one copy: the other side sees the old number or the new one.
        _FIELD.pack_into(self._fields, which * _FIELD.size, value)

    def _get(self, which: int) -> int:
        value: int = _FIELD.unpack_from(self._fields, which * _FIELD.size)[0]
        return value


def cache_directory() -> Path:
    """Where compiled shims are kept: ``paxos-rsm`` in XDG_CACHE_HOME, which is ``~/.cache`` where not set."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "paxos-rsm"


def preload_library() -> Path:
    """The compiled shim, compiled now where this user has none of this source yet. Raises FaultUnavailable."""
    if not sys.platform.startswith("linux"):
        raise FaultUnavailable(f"the shim for faults of disk and clock needs Linux; this is {sys.platform}")
    source = SOURCE.read_bytes()
    named = hashlib.blake2b(source + platform.machine().encode(), digest_size=8).hexdigest()
    library = cache_directory() / f"shim-{named}.so"
    if library.exists():
        return library
    compiler = next((found for found in map(shutil.which, COMPILERS) if found), None)
    if compiler is None:
        raise FaultUnavailable(
            f"the shim for faults of disk and clock needs a C compiler, and there is none of {', '.join(COMPILERS)}; "
            "on Debian and Ubuntu, install the package gcc and libc6-dev"
        )
    try:
        library.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _compile(compiler, library)
    except OSError as error:
        raise FaultUnavailable(
            f"the shim cannot be put into {library.parent}: {error}; set XDG_CACHE_HOME"
        ) from None
    return library


def _compile(compiler: str, library: Path) -> None:
    """Compiles beside ``library``, then gives it its name: who looks meanwhile finds all or nothing."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(made), str(SOURCE), "-ldl", "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False)
        if done.returncode:
            raise FaultUnavailable(f"{compiler} cannot compile {SOURCE.name}: {done.stderr.strip()[-500:]}")
        made.rename(library)
