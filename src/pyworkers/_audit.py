"""Finds, before the first fork, what the master would hand to all its workers that is not safe to share.

fork(2): a child has only the thread that called it, shares the open file descriptions of its parent, and has a copy of
its memory, random generators included. Each finding is a line for a person: what it is, and what to do. Whether it is
logged, printed or a reason not to start is the caller's business.

Looks, and touches nothing. Three rules follow. No file that is open is opened again or duplicated: to close any copy
drops the process's record locks on it (fcntl(2)), and on these SQLite's locking stands. No descriptor of somebody else
is changed or closed, not even by a socket object on its way out. And no code of a user's object runs: names are read
from the types and dictionaries themselves, so no lazy module is loaded and no odd attribute is called.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FAREWELL_S = 0.05
"""How long a thread that Python has forgotten may take to leave the kernel before it counts as a C library's."""

_Files = dict[int, os.stat_result]

_LOG_SOCKETS = ("/dev/log", "/var/run/syslog")
_JOURNAL = "/run/systemd/journal/"

_SQLITE_HEADER = b"SQLite format 3\0"
_DATABASE_SUFFIXES = {".db", ".db3", ".sqlite", ".sqlite3", ".mdb", ".gdbm", ".duckdb", ".lmdb"}
# Three of SQLite, one of LMDB, one of DuckDB.
_COMPANION_SUFFIXES = ("-wal", "-shm", "-journal", "-lock", ".wal")

# By the package and the class's name: the modules between them are private and change from version to version.
_GENERATORS = {
    ("random", "Random"): "random.Random",
    ("numpy", "Generator"): "numpy.random.Generator",
    ("numpy", "RandomState"): "numpy.random.RandomState",
    ("torch", "Generator"): "torch.Generator",
}
# Asks the kernel each time, so it has no state to share.
_STATELESS = ("random", "SystemRandom")
# The last one is __main__ again, by multiprocessing.
_NOT_SEARCHED = sys.stdlib_module_names | {"numpy", "torch", "__mp_main__"}

# The C functions behind these attributes: a metaclass has no say in them.
_module_of: Callable[[type], object] = type.__dict__["__module__"].__get__
_name_of: Callable[[type], str] = type.__dict__["__qualname__"].__get__
_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__


def findings(syslog: str | None = None, own: Container[int] = ()) -> list[str]:
    """Return what is not safe to share with the workers, a line each, in a fixed order; empty where all is well.

    To be called in the main thread. It takes some milliseconds; where C libraries have threads, `FAREWELL_S` more.

    Args:
        syslog: The address that this instance logs to, a socket's path or HOST:PORT for UDP: no finding.
        own: Descriptors that are no finding either.
    """
    files = {descriptor: status for descriptor, status in _files().items() if descriptor not in own}
    found = (*_threads(), *_c_threads(), *_sockets(files, syslog), *_databases(files), *_generators(), *_numpy_state())
    return ["".join(char if char.isprintable() else ascii(char)[1:-1] for char in line) for line in found]


# What can be asked without running anybody's code


def _attributes(thing: object) -> dict[str, object]:
    """Return a copy of the object's dictionary, made in one step: other threads may change it at any time."""
    try:
        namespace: dict[str, object] = object.__getattribute__(thing, "__dict__")
        return dict(namespace)
    except Exception:  # noqa: BLE001  (whatever a class has made of its dictionary, the audit goes on without it)
        return {}


def _label(cls: type) -> tuple[str, str]:
    """Return the module and the name of a class."""
    module = None
    with contextlib.suppress(AttributeError):
        module = _module_of(cls)
    return (module if type(module) is str else ""), _name_of(cls)


def _dotted(module: object, name: str) -> str:
    return f"{module}.{name}" if type(module) is str and module not in ("", "builtins") else name


def _callable_name(target: object) -> str:
    cls = type(target)
    while cls is functools.partial or cls is MethodType:
        target = object.__getattribute__(target, "func" if cls is functools.partial else "__func__")
        cls = type(target)
    if cls is FunctionType or cls is BuiltinFunctionType:
        return _dotted(*(object.__getattribute__(target, name) for name in ("__module__", "__qualname__")))
    return "no target" if target is None else _dotted(*_label(cls))


# Threads


def _threads() -> list[str]:
    """Return a line for each thread of Python but the main one."""
    lines: list[str] = []
    for thread in _known_threads():
        threading: Any = sys.modules["threading"]
        if thread is not threading.main_thread():
            cls, attributes = type(thread), _attributes(thread)
            # Thread.run forgets its target at the very end. Where the class is not Thread, it says more than a target.
            runs = _callable_name(attributes.get("_target")) if cls is threading.Thread else _dotted(*_label(cls))
            who = f"thread {attributes.get('_name')} ({runs})"
            lines.append(f"{who} will not run in a worker; start it in on_worker_start")
    return sorted(lines)


def _known_threads() -> list[object]:
    threading: Any = sys.modules.get("threading")
    return [] if threading is None else threading.enumerate()


def _c_threads() -> list[str]:
    """Return one line for all the threads that Python does not know. Linux only: proc(5)."""
    deadline = time.monotonic() + FAREWELL_S
    unknown = _unknown_tids()
    # Thread.join returns while the kernel has still to take the thread away; one that just starts has no native_id.
    while unknown and time.monotonic() < deadline:
        time.sleep(0.002)
        unknown &= _unknown_tids()
    names = Counter(os.fsdecode(comm) for tid in unknown if (comm := _read(f"/proc/self/task/{tid}/comm").strip()))
    if not names:
        return []
    listed = ", ".join(f"{name} x{count}" for name, count in sorted(names.items()))
    advice = "load what starts them in on_worker_start"
    if b"openblas" in _read("/proc/self/maps"):
        # OpenBLAS starts its own anew after fork (pthread_atfork(3)), but nothing tells its threads from others.
        advice = "if they are numpy's, set OPENBLAS_NUM_THREADS=1 before it is imported"
    return [f"threads unknown to Python ({listed}) will not run in a worker; {advice}"]


def _unknown_tids() -> set[int]:
    try:
        # The /proc of another PID namespace has other numbers than we know.
        if os.readlink("/proc/self") != str(os.getpid()):
            return set()
        tids = set(_numbers("/proc/self/task"))
    except OSError:
        return set()
    # The first thread's is the pid: its native_id is out of date in a process that was forked.
    known = {_attributes(thread).get("_native_id") for thread in _known_threads()}
    return tids - known - {os.getpid()}


def _numbers(directory: str) -> list[int]:
    return sorted(map(int, os.listdir(directory)))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


# Descriptors


def _files() -> _Files:
    """Return the open descriptors in order, with what fstat(2) says of each."""
    try:
        descriptors = _numbers("/dev/fd")
    except OSError:
        # The table may be full: then there is nothing for it but to try each of them.
        limit = os.sysconf("SC_OPEN_MAX")
        descriptors = list(range(limit if 0 < limit < 65536 else 65536))
    files: _Files = {}
    for descriptor in descriptors:
        # The one that the list was read with is closed by now.
        with contextlib.suppress(OSError):
            files[descriptor] = os.fstat(descriptor)
    return files


def _sockets(files: _Files, syslog: str | None) -> Iterator[str]:
    """Yield a line for each socket that has a peer."""
    # A log to a stderr that is a socket has a descriptor of its own for it.
    standard = [file for descriptor, file in files.items() if descriptor <= 2]
    for descriptor, file in files.items():
        if not stat.S_ISSOCK(file.st_mode) or any(os.path.samestat(file, other) for other in standard):
            continue
        peer, is_datagram = _peer(descriptor)
        if peer is not None and not _is_for_many(peer, is_datagram, syslog):
            hint = ""
            if not peer and "asyncio" in sys.modules:
                hint = " (an asyncio event loop has two of these until it is closed)"
            where = f"socket fd={descriptor} connected to {_address(peer)}{hint}"
            yield f"{where} would be shared by all workers; open it in on_worker_start"


def _peer(descriptor: int) -> tuple[Any, bool]:
    """Return the peer's address as Python has it, None where there is no peer, and whether it is sent datagrams."""
    import _socket

    # The C type, since gevent puts one in the place of socket.socket that does not block. The kind is given, and with
    # SOCK_NONBLOCK, so that Python sets nothing: with a default timeout it would make the socket non-blocking for all
    # who share it (macOS lacks the flag). The family is no matter: the peer's address tells its own.
    kind = _socket.SOCK_STREAM | getattr(_socket, "SOCK_NONBLOCK", 0)
    try:
        borrowed = _socket.socket(_socket.AF_UNIX, kind, 0, descriptor)
    except OSError:
        return None, False
    try:
        kind = borrowed.getsockopt(_socket.SOL_SOCKET, _socket.SO_TYPE)
        return borrowed.getpeername(), kind == _socket.SOCK_DGRAM
    except OSError:
        return None, False
    finally:
        borrowed.detach()


def _address(peer: Any) -> str:
    if not peer:
        return "an unnamed peer"
    match peer:
        case bytes():
            # unix(7): an abstract name, which begins with a null byte.
            return "@" + os.fsdecode(peer[1:])
        case str():
            return peer
        case (str(host), port, *rest):
            return f"[{host}]:{port}" if rest else f"{host}:{port}"
        case _:
            return f"{peer}"


def _is_for_many(peer: Any, is_datagram: bool, syslog: str | None) -> bool:
    """Whether the peer expects many writers on one socket: syslog, the journal, sd_notify(3), the kernel."""
    if isinstance(peer, (str, bytes)):
        # A peer goes by the name that it was bound to, which may be where a symbolic link leads.
        names = _with_target(_address(peer)) if peer else set[str]()
        known = (*_LOG_SOCKETS, syslog, os.environ.get("NOTIFY_SOCKET"))
        return any(names & _with_target(path) for path in known) or any(name.startswith(_JOURNAL) for name in names)
    host, _, port = (syslog or "").rpartition(":")
    match peer:
        case (str(address), int(number), *_) if str(number) == port and is_datagram:
            # A name is not looked up again, because a name server must not hold up the start: its port is enough.
            return address == host or not host.replace(".", "").isdecimal()
        case (0, int()):
            # netlink(7): without a connect, too, the peer is the kernel.
            return True
        case _:
            return False


def _with_target(path: str | None) -> set[str]:
    return {path, os.path.realpath(path)} if path else set()


def _databases(files: _Files) -> list[str]:
    """Return a line for each database, however many descriptors of however many of its files are open."""
    found: set[str] = set()
    for descriptor, file in files.items():
        if descriptor > 2 and stat.S_ISREG(file.st_mode):
            with contextlib.suppress(OSError):
                path = _path(descriptor)
                main = _main_file(path if file.st_nlink else path.removesuffix(" (deleted)"))
                if os.path.splitext(main)[1].lower() in _DATABASE_SUFFIXES:
                    found.add(main)
                # pread(2) leaves the offset where it is. It fails where the file was opened for writing alone.
                elif os.pread(descriptor, len(_SQLITE_HEADER), 0) == _SQLITE_HEADER:
                    found.add(path)
    return [f"database {path} would be shared by all workers; open it in on_worker_start" for path in sorted(found)]


def _path(descriptor: int) -> str:
    if sys.platform == "darwin":
        return os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
    return os.readlink(f"/proc/self/fd/{descriptor}")


def _main_file(path: str) -> str:
    """Return the database that a file accompanies, or the path as it is."""
    for suffix in _COMPANION_SUFFIXES:
        path = path.removesuffix(suffix)
    directory, name = os.path.split(path)
    return os.path.join(directory, "data.mdb") if name == "lock.mdb" else path


# Random generators


def _generators() -> list[str]:
    """Return a line for each generator in the globals of a module, but the standard library's, numpy's and torch's."""
    # random reseeds its own in a child (os.register_at_fork); numpy's is another finding.
    spared = {id(_attributes(sys.modules.get("random")).get("_inst")), id(_numpy_singleton())}
    kinds: dict[int, str | None] = {}
    names: dict[tuple[int, str], list[str]] = {}
    for name, module in sys.modules.copy().items():
        if type(name) is not str or name.partition(".")[0] in _NOT_SEARCHED or not issubclass(type(module), ModuleType):
            continue
        for variable, value in _attributes(module).items():
            cls = type(value)
            if id(cls) not in kinds:
                kinds[id(cls)] = _kind_of_generator(cls)
            if (kind := kinds[id(cls)]) is not None and id(value) not in spared:
                names.setdefault((id(value), kind), []).append(f"{name}.{variable}")
    return sorted(
        f"generator {', '.join(sorted(where))} ({kind}) would draw the same in every worker; make it in on_worker_start"
        for (_, kind), where in names.items()
    )


def _kind_of_generator(cls: type) -> str | None:
    labels = [(module.partition(".")[0], name) for module, name in map(_label, _mro_of(cls))]
    if _STATELESS in labels:
        return None
    return next((_GENERATORS[label] for label in labels if label in _GENERATORS), None)


def _numpy_singleton() -> Any:
    """Return the generator behind numpy.random's functions, or None where they are not loaded."""
    return _attributes(sys.modules.get("numpy.random.mtrand")).get("_rand")


def _numpy_state() -> list[str]:
    """Return a line where numpy.random was seeded or drawn from.

    Untouched it is none, although the workers share it all the same: pandas, scipy.stats and sklearn load it without a
    draw, so the line would stand in almost every log, and no change to the program could make it go away.
    """
    try:
        generator = _numpy_singleton()._bit_generator
        entropy = generator._seed_seq
        # A seed takes the place of the entropy with which numpy was loaded.
        if entropy is not None and repr(type(generator)(entropy).state) == repr(generator.state):
            return []
    except Exception:  # noqa: BLE001  (numpy is not loaded, or its version keeps the state elsewhere)
        return []
    touched = "seeded" if entropy is None else "drawn from"
    return [f"numpy.random was {touched}, and would draw the same in every worker; seed it only in on_worker_start"]
