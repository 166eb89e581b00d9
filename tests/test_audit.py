"""G9: what the master would hand to all its workers is found by name, and looking at it changes nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType

import pytest

from pyworkers import _audit
from pyworkers._audit import findings
from pyworkers._sinks import SyslogSink

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this is how Linux tells it")

THREAD = "will not run in a worker; start it in on_worker_start"
SHARED = "would be shared by all workers; open it in on_worker_start"
DRAWN = "would draw the same in every worker; make it in on_worker_start"


def audited(code: str, **popen: object) -> list[str]:
    """Run code in a fresh interpreter in which each warning is an error, and return what the audit finds after it."""
    program = f"{textwrap.dedent(code)}\nfrom pyworkers._audit import findings\nimport json, os\n"
    program += "print(json.dumps(findings()), flush=True)\nos._exit(0)"
    done = subprocess.run(
        [sys.executable, "-bb", "-W", "error", "-c", program],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
        **{"stdin": subprocess.DEVNULL, "text": True, **popen},  # type: ignore[call-overload]
    )
    found: list[str] = json.loads(done.stdout)
    return found


def of_socket(connection: socket.socket, syslog: str | None = None) -> list[str]:
    """Return the findings about one socket."""
    return [line for line in findings(syslog) if line.startswith(f"socket fd={connection.fileno()} ")]


def of_databases() -> list[str]:
    return [line for line in findings() if line.startswith("database ")]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes at the end of the test what was entered."""
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module `shop`, loaded for the time of the test."""
    shop = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", shop)
    return shop


def listener(stack: ExitStack, address: str | bytes, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a UNIX socket that takes connections at the address."""
    server = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
    server.bind(address)
    if kind == socket.SOCK_STREAM:
        server.listen()
    return server


def client(stack: ExitStack, server: socket.socket) -> socket.socket:
    """Return a socket connected to the server."""
    connection = stack.enter_context(socket.socket(server.family, server.type))
    connection.connect(server.getsockname())
    return connection


# Nothing


@pytest.mark.parametrize(
    "what", ["pyworkers", "pyworkers.cli, pyworkers._compose", "asyncio, multiprocessing, sqlite3"]
)
def test_fresh_interpreter_has_no_finding(what: str) -> None:
    """What pyworkers itself loads, or Python, is safe to share."""
    assert audited(f"import {what}") == []


def test_findings_stand_in_a_fixed_order_on_one_line_each(tmp_path: Path) -> None:
    """Threads, sockets, databases, generators; a name that holds a line break stays on its line."""
    found = audited(f"""
        import random, socket, threading
        rng = random.Random()
        databases = [open({str(tmp_path)!r} + name, "wb") for name in ("/a.sqlite", "/b\\n.db")]
        pair = socket.socketpair()
        for name in ("two\\nlines", "one"):
            threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()
    """)

    assert [line.split()[0] for line in found] == ["thread"] * 2 + ["socket"] * 2 + ["database"] * 2 + ["generator"]
    assert [line.partition(" (")[0] for line in found[:2]] == ["thread one", "thread two\\nlines"]
    assert not any("\n" in line for line in found)
    assert any("\\n.db " in line for line in found)


# Threads


@pytest.mark.parametrize(
    ("thread", "what"),
    [
        ("threading.Thread(target=serve, name='poll')", "poll (__main__.serve)"),
        ("threading.Thread(target=serve, name='poll', daemon=True)", "poll (__main__.serve)"),
        ("threading.Thread(target=Poller().loop, name='poll')", "poll (__main__.Poller.loop)"),
        ("threading.Thread(target=functools.partial(Poller().loop, 1), name='poll')", "poll (__main__.Poller.loop)"),
        ("threading.Thread(target=time.sleep, args=(60,), name='poll')", "poll (time.sleep)"),
        ("threading.Thread(target=Poller(), name='poll')", "poll (__main__.Poller)"),
        ("Own(name='poll')", "poll (__main__.Own)"),
        ("threading.Timer(60, serve)", "Thread-1 (threading.Timer)"),
    ],
)
def test_thread_is_found_by_its_name_and_what_it_runs(thread: str, what: str) -> None:
    """A function by its qualified name, through partials and methods; a subclass of Thread by its class."""
    found = audited(f"""
        import functools, threading, time
        def serve(): time.sleep(60)
        class Poller:
            def loop(self, *_): time.sleep(60)
            __call__ = loop
        class Own(threading.Thread):
            def run(self): time.sleep(60)
        {thread}.start()
    """)

    assert found == [f"thread {what} {THREAD}"]


def test_threads_that_have_ended_are_no_finding() -> None:
    """Thread.join returns while the kernel has still to take the thread away: it gets a moment for that."""
    found = audited("""
        import threading
        from pyworkers._audit import findings
        for _ in range(30):
            threads = [threading.Thread(target=int) for _ in range(5)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert findings() == []
    """)

    assert found == []


@linux
def test_threads_of_c_libraries_are_counted_by_name() -> None:
    """What is in /proc/self/task and unknown to threading is one finding."""
    found = audited("""
        import _thread, ctypes, threading, time
        libc = ctypes.CDLL(None)
        for name in (b"courier", b"courier", b"a clerk"):
            thread = ctypes.c_ulong()
            libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)
            libc.pthread_setname_np(thread, name)
        threading.Thread(target=time.sleep, args=(60,), name="known").start()
    """)

    listed = "threads unknown to Python (a clerk x1, courier x2)"
    assert found == [
        f"thread known (time.sleep) {THREAD}",
        f"{listed} will not run in a worker; load what starts them in on_worker_start",
    ]


@linux
def test_first_thread_is_known_after_a_fork() -> None:
    """A daemon is a child of the process that imported the app, and threading's native_id may still be the parent's."""
    found = audited("""
        import os, threading
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)

    assert found == []


@linux
def test_threads_of_openblas_are_found_with_what_to_do() -> None:
    """Numpy's threads look like any other's, so the line says how to have none."""
    pytest.importorskip("numpy")

    assert audited("import numpy", env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) == []
    found = audited("import numpy", env={**os.environ, "OPENBLAS_NUM_THREADS": "2"})
    if (os.cpu_count() or 1) > 1:
        assert len(found) == 1
        assert found[0].endswith("if they are numpy's, set OPENBLAS_NUM_THREADS=1 before it is imported")


# Sockets


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_tcp_connection_is_found_by_its_peer(stack: ExitStack, family: socket.AddressFamily) -> None:
    """At both ends: the address as one types it, the descriptor as lsof shows it. The listening socket is none."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        server = stack.enter_context(socket.create_server((host, 0), family=family))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    connection = client(stack, server)
    accepted = stack.enter_context(server.accept()[0])

    for mine, port in ((connection, server.getsockname()[1]), (accepted, connection.getsockname()[1])):
        address = f"[::1]:{port}" if family == socket.AF_INET6 else f"127.0.0.1:{port}"
        assert of_socket(mine) == [f"socket fd={mine.fileno()} connected to {address} {SHARED}"]
    assert of_socket(server) == []


def test_unix_connection_is_found_by_its_path(stack: ExitStack, tmp_path: Path) -> None:
    """A datagram socket that has a peer is shared just as well."""
    for kind, name in ((socket.SOCK_STREAM, "stream"), (socket.SOCK_DGRAM, "datagrams")):
        server = listener(stack, str(tmp_path / name), kind)
        connection = client(stack, server)

        expected = f"socket fd={connection.fileno()} connected to {tmp_path / name} {SHARED}"
        assert of_socket(connection) == [expected]
        assert of_socket(server) == []


@linux
def test_abstract_unix_name_is_shown_as_others_show_it(stack: ExitStack) -> None:
    """unix(7): its first byte is null, for which ss(8) and systemd write an @."""
    name = f"pyworkers-test-{os.getpid()}"
    connection = client(stack, listener(stack, b"\0" + name.encode()))

    assert of_socket(connection) == [f"socket fd={connection.fileno()} connected to @{name} {SHARED}"]


def test_both_ends_of_a_socketpair_are_found() -> None:
    """Their peers have no name; where asyncio is loaded, the line says whose they may be."""
    unnamed = "connected to an unnamed peer"

    assert audited("import socket\npair = socket.socketpair()") == [
        f"socket fd=3 {unnamed} {SHARED}",
        f"socket fd=4 {unnamed} {SHARED}",
    ]
    loop = audited("import asyncio\nloop = asyncio.new_event_loop()")
    assert len(loop) == 2
    for line in loop:
        assert f"{unnamed} (an asyncio event loop has two of these until it is closed) {SHARED}" in line
    assert audited("import asyncio\nloop = asyncio.new_event_loop()\nloop.close()") == []


def test_sockets_without_a_peer_are_no_finding(stack: ExitStack, tmp_path: Path) -> None:
    """Bound, listening, fresh, or netlink's, whose peer is the kernel."""
    kinds = [
        (family, kind)
        for family in (socket.AF_UNIX, socket.AF_INET)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    ]
    if hasattr(socket, "AF_NETLINK"):
        kinds.append((socket.AF_NETLINK, socket.SOCK_RAW))
    alone = [stack.enter_context(socket.socket(*kind)) for kind in kinds]
    alone.append(listener(stack, str(tmp_path / "listening")))
    bound = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    bound.bind(("127.0.0.1", 0))

    assert [line for each in (*alone, bound) for line in of_socket(each)] == []


def test_standard_streams_that_are_sockets_are_no_finding() -> None:
    """Nor are other descriptors of the same socket, such as the one that our log has of stderr."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = audited("import os\nown = os.dup(0), os.dup(2)", stdin=theirs, stderr=theirs)

    assert found == []


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_log_of_the_instance_is_no_finding(stack: ExitStack, tmp_path: Path, kind: int) -> None:
    """By the path that was given, also where that is a symbolic link; without it, it is a socket like any other."""
    path, link = tmp_path / "log", tmp_path / "link"
    listener(stack, str(path), kind)
    link.symlink_to(path)
    before = set(findings())
    sink = SyslogSink("shop", str(link))
    stack.callback(sink.close)

    assert len([line for line in findings() if line not in before and str(path) in line]) == 1
    assert [line for line in findings(str(path)) if str(path) in line] == []
    assert [line for line in findings(str(link)) if str(path) in line] == []


def test_log_of_the_instance_by_udp_is_no_finding(stack: ExitStack) -> None:
    """The address that was given, and no other port, host or protocol; a host's name is not looked up."""
    server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))
    connection = client(stack, server)
    port = server.getsockname()[1]

    assert of_socket(connection, f"127.0.0.1:{port}") == []
    assert of_socket(connection, f"no-such-host.invalid:{port}") == []
    for other in (None, "/dev/log", f"127.0.0.1:{port - 1}", f"127.0.0.2:{port}"):
        assert len(of_socket(connection, other)) == 1
    stream = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert len(of_socket(client(stack, stream), f"127.0.0.1:{stream.getsockname()[1]}")) == 1


def test_logs_of_the_machine_are_no_finding(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """syslog(3) and the journal connect where the machine has them, whatever the instance itself logs to."""
    journal = tmp_path / "journal"
    journal.mkdir()
    (tmp_path / "dev-log").symlink_to(tmp_path / "daemon")
    servers = [listener(stack, str(path), socket.SOCK_DGRAM) for path in (tmp_path / "daemon", journal / "socket")]
    connections = [client(stack, server) for server in servers]
    assert [len(of_socket(connection)) for connection in connections] == [1, 1]

    monkeypatch.setattr(_audit, "_LOG_SOCKETS", (str(tmp_path / "dev-log"),))
    monkeypatch.setattr(_audit, "_JOURNAL", f"{journal}/")
    assert [of_socket(connection) for connection in connections] == [[], []]


def test_notify_socket_is_no_finding(stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_notify(3): a path or, on Linux, an abstract name."""
    addresses = {str(tmp_path / "notify"): str(tmp_path / "notify").encode()}
    if sys.platform.startswith("linux"):
        addresses[f"@pyworkers-notify-{os.getpid()}"] = f"\0pyworkers-notify-{os.getpid()}".encode()
    for name, address in addresses.items():
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        connection = client(stack, listener(stack, address, socket.SOCK_DGRAM))
        assert len(of_socket(connection)) == 1

        monkeypatch.setenv("NOTIFY_SOCKET", name)
        assert of_socket(connection) == []


@linux
def test_look_at_a_socket_does_not_change_it(stack: ExitStack) -> None:
    """A default timeout is not applied to it, and it stays open."""
    before = socket.getdefaulttimeout()
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    stack.callback(socket.setdefaulttimeout, before)
    socket.setdefaulttimeout(5)

    assert len(of_socket(ours)) == 1
    assert os.get_blocking(ours.fileno())
    ours.send(b"still here")
    assert theirs.recv(100) == b"still here"


# Databases


def test_sqlite_is_found_by_its_header_and_once(stack: ExitStack, tmp_path: Path) -> None:
    """Whatever its name; its journals and further connections are the same database."""
    path = tmp_path / "orders.dat"
    for _ in range(2):
        connection = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE IF NOT EXISTS job (id)")
        connection.execute("INSERT INTO job VALUES (1)")
    memory = stack.enter_context(closing(sqlite3.connect(":memory:")))
    memory.execute("CREATE TABLE job (id)")
    assert path.with_name("orders.dat-wal").exists()

    assert of_databases() == [f"database {path} {SHARED}"]
    stack.close()
    assert of_databases() == []


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *(
            (f"x{suffix}", f"x{suffix}")
            for suffix in (".db", ".db3", ".sqlite", ".sqlite3", ".gdbm", ".duckdb", ".lmdb")
        ),
        ("X.DB", "X.DB"),
        ("data.mdb", "data.mdb"),
        ("lock.mdb", "data.mdb"),
        ("x.db-wal", "x.db"),
        ("x.sqlite-shm", "x.sqlite"),
        ("x.db-journal", "x.db"),
        ("x.lmdb-lock", "x.lmdb"),
        ("x.duckdb.wal", "x.duckdb"),
        ("x.txt", None),
        ("x.wal", None),
        ("x.log-journal", None),
        ("db", None),
        ("x.db.gz", None),
    ],
)
def test_database_is_found_by_its_name(tmp_path: Path, name: str, shown: str | None) -> None:
    """Also while it is empty, and where only a file that goes with it is open."""
    with (tmp_path / name).open("wb"):
        assert of_databases() == ([] if shown is None else [f"database {tmp_path / shown} {SHARED}"])


def test_database_that_was_removed_is_found_by_its_old_name(tmp_path: Path) -> None:
    """proc(5) shows it with a mark at the end, which is no part of the name."""
    path = tmp_path / "x.db"
    with path.open("wb"):
        path.unlink()
        if sys.platform.startswith("linux"):
            assert of_databases() == [f"database {path} {SHARED}"]


def test_directories_and_pipes_are_no_database(stack: ExitStack, tmp_path: Path) -> None:
    """Only a regular file is one, whatever else is named like it."""
    (tmp_path / "folder.db").mkdir()
    stack.callback(os.close, os.open(tmp_path / "folder.db", os.O_RDONLY))
    os.mkfifo(tmp_path / "pipe.db")
    stack.callback(os.close, os.open(tmp_path / "pipe.db", os.O_RDWR))

    assert of_databases() == []


def test_look_at_a_file_does_not_move_it(tmp_path: Path) -> None:
    """The offset is everybody's who shares the description; a file that cannot be read is no reason to fail."""
    path = tmp_path / "plain"
    path.write_bytes(_audit._SQLITE_HEADER + b"x" * 100)
    with path.open("rb", buffering=0) as reader, path.open("ab", buffering=0):
        reader.seek(7)

        assert of_databases() == [f"database {path} {SHARED}"]
        assert reader.tell() == 7


def test_look_at_a_database_keeps_its_locks(stack: ExitStack, tmp_path: Path) -> None:
    """fcntl(2): a process that closes any descriptor of a file has lost all its record locks there."""
    path = tmp_path / "orders.db"
    connection = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
    connection.execute("CREATE TABLE job (id)")
    connection.execute("BEGIN EXCLUSIVE")
    code = "import sqlite3, sys\nsqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM job')"

    assert of_databases() == [f"database {path} {SHARED}"]
    other = subprocess.run([sys.executable, "-c", code, path], stderr=subprocess.PIPE, text=True, check=False)
    assert "database is locked" in other.stderr


def test_audit_leaves_no_descriptor_open(stack: ExitStack, tmp_path: Path) -> None:
    """What it opens to look around is closed again."""
    stack.enter_context(closing(sqlite3.connect(tmp_path / "x.db")))
    for each in socket.socketpair():
        stack.enter_context(each)
    before = {path.name for path in Path("/dev/fd").iterdir()}
    findings()

    assert {path.name for path in Path("/dev/fd").iterdir()} == before


def test_full_descriptor_table_hides_nothing() -> None:
    """Where the list cannot be opened, each descriptor is tried."""
    found = audited("""
        import os, resource, socket
        pair = socket.socketpair()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        from pyworkers._audit import findings
        import json
        try:
            while True: os.dup(0)
        except OSError:
            found = findings()
        assert [line.split()[1] for line in found] == ["fd=3", "fd=4"], found
        os.closerange(5, 64)
    """)

    assert len(found) == 2


# Random generators


class Dice(random.Random):
    """A generator of a user's own."""


def imitation(*, package: str, name: str) -> object:
    """Return an object that looks like a generator of a package that need not be installed."""
    return type(name, (), {"__module__": package, "__qualname__": name})()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (random.Random(), "random.Random"),
        (random.Random(1), "random.Random"),
        (Dice(), "random.Random"),
        (imitation(package="numpy.random._generator", name="Generator"), "numpy.random.Generator"),
        (imitation(package="numpy.random.mtrand", name="RandomState"), "numpy.random.RandomState"),
        (imitation(package="torch._C", name="Generator"), "torch.Generator"),
        (random.SystemRandom(), None),
        (imitation(package="shop", name="Generator"), None),
        (imitation(package="shop", name="Random"), None),
        (random.Random, None),
        ([random.Random()], None),
        (None, None),
    ],
)
def test_generator_in_the_globals_of_a_module_is_found(module: ModuleType, value: object, shown: str | None) -> None:
    """By the module's name and its own; its type by the names that all versions of a package have in common."""
    vars(module)["rng"] = value

    found = [line for line in findings() if "shop." in line]
    assert found == ([] if shown is None else [f"generator shop.rng ({shown}) {DRAWN}"])


def test_generator_of_many_names_is_one_finding(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one generator, wherever it was imported to; two generators are two."""
    monkeypatch.setitem(sys.modules, "shop.jobs", ModuleType("shop.jobs"))
    shared = random.Random()
    vars(module).update(rng=shared, again=shared, other=random.Random())
    vars(sys.modules["shop.jobs"])["rng"] = shared

    assert [line for line in findings() if "shop." in line] == [
        f"generator shop.again, shop.jobs.rng, shop.rng (random.Random) {DRAWN}",
        f"generator shop.other (random.Random) {DRAWN}",
    ]


def test_generators_that_python_reseeds_are_no_finding() -> None:
    """Random's own, also by the names that a module has of it, and those that belong to the standard library."""
    found = audited("""
        import random, tempfile
        from random import _inst as rng
        random.seed(1)
        tempfile.rng = random.Random()
        import multiprocessing
    """)

    assert found == []


def test_generator_of_a_script_is_found_once() -> None:
    """Multiprocessing loads __main__ under a second name."""
    found = audited("import multiprocessing, random\nrng = random.Random()")

    assert found == [f"generator __main__.rng (random.Random) {DRAWN}"]


def test_odd_objects_are_neither_touched_nor_in_the_way(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No code of theirs runs, whatever they define, and what comes after them is found."""
    touched: list[str] = []

    def touch(*_: object) -> object:
        touched.append("an odd object's code ran")
        raise RuntimeError

    trap = property(touch)
    special = ("__getattribute__", "__hash__", "__eq__", "__bool__", "__repr__", "__iter__", "__len__")
    meta = type("Meta", (type,), {**dict.fromkeys(special, touch), "__mro__": trap, "__module__": trap})
    odd_class = type.__call__(meta, "Odd", (), {**dict.fromkeys(special, touch), "__class__": trap, "__module__": trap})
    odd_module = type("OddModule", (ModuleType,), {"__getattr__": touch, "__getattribute__": touch, "__repr__": touch})
    loaded = odd_module("shop.odd")
    vars_of_loaded = object.__getattribute__(loaded, "__dict__")
    vars_of_loaded.update(rng=random.Random(), __name__=None)
    vars(module).update(odd=object.__new__(odd_class), kind=odd_class)
    vars(module)[1] = random.Random()  # type: ignore[index]  # what globals()[1] does
    vars(module)["last"] = random.Random()
    monkeypatch.setitem(sys.modules, "shop.odd", loaded)
    monkeypatch.setitem(sys.modules, "shop.none", None)  # type: ignore[arg-type]  # how an import is forbidden
    monkeypatch.setitem(sys.modules, "shop.instance", object.__new__(odd_class))

    found = [line for line in findings() if "shop." in line]
    assert touched == []
    assert found == [f"generator shop.{name} (random.Random) {DRAWN}" for name in ("1", "last", "odd.rng")]


def test_lazy_module_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """importlib.util.LazyLoader loads at the first attribute, __dict__ included."""
    path = tmp_path / "lazy_shop.py"
    path.write_text("raise AssertionError('loaded')")
    spec = importlib.util.spec_from_file_location("lazy_shop", path)
    assert spec is not None
    assert spec.loader is not None
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lazy_shop", lazy)
    importlib.util.LazyLoader(spec.loader).exec_module(lazy)

    findings()
    with pytest.raises(AssertionError, match="loaded"):
        vars(lazy)


def test_thread_that_denies_its_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass of Thread may override whatever it likes."""

    class Denying(threading.Thread):
        name = property(lambda _: 1 / 0)  # type: ignore[assignment]

        def __repr__(self) -> str:
            raise RuntimeError

    leave = threading.Event()
    thread = Denying(target=leave.wait)
    thread.start()
    try:
        found = [line for line in findings() if "Denying" in line]
    finally:
        leave.set()
        thread.join()

    assert len(found) == 1
    assert found[0].startswith("thread Thread-")


NUMPY = "numpy.random was {}, and would draw the same in every worker; seed it only in on_worker_start"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import numpy", []),
        ("import numpy.random", []),
        ("from numpy.random.mtrand import _rand", []),
        ("import numpy.random\nnumpy.random.seed(3)", [NUMPY.format("seeded")]),
        ("import numpy.random\nnumpy.random.seed()", [NUMPY.format("seeded")]),
        ("import numpy.random\nnumpy.random.seed(3)\nnumpy.random.rand()", [NUMPY.format("seeded")]),
        ("import numpy.random\nnumpy.random.rand()", [NUMPY.format("drawn from")]),
        ("import numpy.random\nnumpy.random.shuffle([1, 2, 3])", [NUMPY.format("drawn from")]),
        (
            "from numpy import random as r\nrng = r.default_rng(1)",
            [f"generator __main__.rng (numpy.random.Generator) {DRAWN}"],
        ),
        (
            "from numpy import random as r\nrng = r.RandomState()",
            [f"generator __main__.rng (numpy.random.RandomState) {DRAWN}"],
        ),
    ],
)
def test_numpy_is_found_where_it_was_touched(code: str, expected: list[str]) -> None:
    """Its global state once it was seeded or drawn from; generators like everybody's."""
    pytest.importorskip("numpy")

    assert audited(code, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) == expected


def test_unknown_numpy_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that keeps its state elsewhere must not end the audit."""
    for state in ({}, {"_rand": object()}):
        numpy = ModuleType("numpy.random.mtrand")
        vars(numpy).update(state)
        monkeypatch.setitem(sys.modules, "numpy.random.mtrand", numpy)

        assert not [line for line in findings() if line.startswith("numpy")]
