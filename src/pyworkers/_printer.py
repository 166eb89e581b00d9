"""The process that prints what workers write, each line under the name of its handler and PIN: `--prefix-output`.

A process and not a part of the master's loop, because a worker can write faster than anybody reads, and the terminal
may stand still: supervision is to notice neither. It holds no PIN and no lock, and nothing stops it but the end of
those whose output it has: it leaves when the master says that all are gone, or, where the master is dead, when they
are.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import time

from pyworkers._core.types import Pid
from pyworkers._posix import process, signals
from pyworkers._posix.handover import Handed, Handover
from pyworkers._posix.kernel import PosixKernel
from pyworkers._posix.outlets import NO_ROOM, Outlet
from pyworkers._posix.titles import SetTitle

LINE_MAX = 65536
"""A line that is longer is printed in pieces: somebody may never write a newline."""

BACKLOG_MAX = 1 << 20
"""With so many bytes for a reader that does not keep up, no more are taken: then who writes waits, as it would for the
reader itself."""

END_PATIENCE_S = 0.5
"""How long the end waits for a reader that stands still."""

_COLOURS = [
    f"\x1b[{code}m".encode() for code in ("36", "33", "32", "35", "31", "34", "96", "93", "92", "95", "91", "94")
]
_PLAIN = b"\x1b[0m"


class _Target:
    """One of our own standard streams, and what waits for room in it."""

    def __init__(self, stream: int) -> None:
        self._outlet = Outlet(stream)
        self.is_coloured = _takes_colours(stream)
        self.backlog = bytearray()
        self.is_gone = False

    def fileno(self) -> int:
        return self._outlet.fileno()

    def add(self, data: bytes) -> None:
        if not self.is_gone:
            self.backlog += data

    def flush(self) -> None:
        """Write what there is room for."""
        try:
            while self.backlog:
                chunk = bytes(self.backlog[:LINE_MAX])
                del self.backlog[: len(chunk) - len(self._outlet.write(chunk))]
        except OSError as error:
            if error.errno not in NO_ROOM:
                # A full disk may have room again; whose reader has gone has gone for good.
                self.backlog.clear()
                self.is_gone = isinstance(error, BrokenPipeError)


def _takes_colours(stream: int) -> bool:
    return os.isatty(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Source:
    """One pipe of a worker, and the beginning of a line that is not whole yet."""

    def __init__(self, descriptor: int, target: _Target) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.target = target
        self.rest = b""

    def read(self) -> bytes | None:
        """Return what is there, nothing at the end, None where there is nothing just now."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.descriptor, LINE_MAX)
        return None


class _Writer:
    """A worker, as its lines name it."""

    def __init__(self, handed: Handed, width: int) -> None:
        self.sources: list[_Source] = []
        self._width = width
        self.rename(handed)

    def rename(self, handed: Handed) -> None:
        """Be what it says that it is."""
        self._name = handed.name.ljust(self._width).encode(errors="backslashreplace")
        self._colour = None if handed.colour is None else _COLOURS[handed.colour % len(_COLOURS)]

    def print(self, source: _Source, data: bytes, *, last: bool = False) -> None:
        """Print the lines that are whole, and at the `last` what is left."""
        data = source.rest + data
        whole = len(data) if last or len(data) > LINE_MAX else data.rfind(b"\n") + 1
        source.rest = data[whole:]
        if whole:
            head = time.strftime("%H:%M:%S ").encode() + self._name + b" | "
            if source.target.is_coloured and self._colour is not None:
                head = self._colour + head + _PLAIN
            source.target.add(head + data[:whole].removesuffix(b"\n").replace(b"\n", b"\n" + head) + b"\n")


class Printer:
    """The one of an instance.

    Args:
        handover: Where workers say who they are.
        width: Of the longest name that is known beforehand.
        patience_s: How long workers may live on after a dead master.
    """

    def __init__(self, handover: Handover, width: int, patience_s: float) -> None:
        self._handover = handover
        self._width = width
        self._patience_s = patience_s
        first = _Target(1)
        self._targets = (first,) if handover.is_one else (first, _Target(2))
        self._writers: dict[Pid, _Writer] = {}
        self._sources: dict[int, tuple[_Writer, _Source]] = {}
        self._poller = select.poll()

    def run(self) -> int:
        """Print until everybody has gone."""
        self._poller.register(taker := self._handover.keep_taking(), select.POLLIN)
        _keep_only({0, 1, 2, taker, *(target.fileno() for target in self._targets)})
        end_at = math.inf
        while True:
            # Without a master: until the last of them has closed its streams, or has had its time.
            if end_at < math.inf and (not self._sources or time.monotonic() >= end_at):
                break
            timeout_s = min(end_at - time.monotonic(), self._patience_s + 1)
            ready = dict(self._poller.poll(None if end_at == math.inf else math.ceil(timeout_s * 1000)))
            if taker in ready:
                said = self._listen()
                if said is True:
                    break
                if said is False:
                    self._poller.unregister(taker)
                    end_at = time.monotonic() + self._patience_s
            for descriptor in ready:
                if descriptor in self._sources:
                    self._read(descriptor)
            self._flush()
        self._leave()
        return 0

    def _listen(self) -> bool | None:
        while isinstance(said := self._handover.take(), Handed):
            writer = self._writers.get(said.pid)
            if writer is None or said.sources:
                writer = self._writers[said.pid] = _Writer(said, self._width)
            else:
                writer.rename(said)
            for descriptor, target in zip(said.sources, self._targets, strict=False):
                source = _Source(descriptor, target)
                writer.sources.append(source)
                self._sources[descriptor] = (writer, source)
                self._poller.register(descriptor, select.POLLIN)
        return said

    def _read(self, descriptor: int) -> bool:
        """Print what there is of one pipe; return whether there may be more."""
        writer, source = self._sources[descriptor]
        data = source.read()
        if data:
            writer.print(source, data)
        elif data is not None:
            self._close(descriptor)
        return bool(data)

    def _close(self, descriptor: int) -> None:
        writer, source = self._sources.pop(descriptor)
        if source.rest:
            writer.print(source, b"", last=True)
        self._overlook(descriptor)
        os.close(descriptor)
        writer.sources.remove(source)
        if not writer.sources:
            self._writers = {pid: other for pid, other in self._writers.items() if other is not writer}

    def _overlook(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._poller.unregister(descriptor)

    def _flush(self) -> None:
        for target in self._targets:
            target.flush()
            # Asked for room while anything waits for it; who writes more than is read has to wait, too.
            if target.backlog:
                self._poller.register(target.fileno(), select.POLLOUT)
            else:
                self._overlook(target.fileno())
        for descriptor, (_, source) in list(self._sources.items()):
            if source.target.is_gone:
                # So that its writer learns it as it would have without us: by SIGPIPE or EPIPE, pipe(7).
                self._close(descriptor)
            elif len(source.target.backlog) > BACKLOG_MAX:
                # Not for no events: the end of its writer would be told again and again, asked for or not (poll(2)).
                self._overlook(descriptor)
            else:
                self._poller.register(descriptor, select.POLLIN)

    def _leave(self) -> None:
        """Print what the pipes still hold, with and without a newline."""
        until = time.monotonic() + END_PATIENCE_S
        while time.monotonic() < until:
            for target in self._targets:
                target.flush()
            if all(len(target.backlog) <= BACKLOG_MAX for target in self._targets):
                more = [self._read(descriptor) for descriptor in list(self._sources)]
                if not any(more) and not any(target.backlog for target in self._targets):
                    break
            if any(target.backlog for target in self._targets):
                poller = select.poll()
                for target in self._targets:
                    if target.backlog:
                        poller.register(target.fileno(), select.POLLOUT)
                poller.poll(max(0.0, until - time.monotonic()) * 1000)
        for descriptor in list(self._sources):
            self._close(descriptor)
        for target in self._targets:
            target.flush()


def _keep_only(descriptors: set[int]) -> None:
    """Close what else was inherited: above all the lock, which says that somebody holds a PIN."""
    for name in os.listdir("/dev/fd"):
        if int(name) not in descriptors:
            with contextlib.suppress(OSError):
                os.close(int(name))


class Helper:
    """The master's handle on its printer.

    Args:
        names: Those that will be printed.
        patience_s: As above.
    """

    def __init__(self, names: list[str], patience_s: float) -> None:
        self.handover = Handover()
        self._width = max(map(len, names), default=0)
        self._patience_s = patience_s
        self._pid: Pid | None = None

    def start(self, kernel: PosixKernel, mask: frozenset[int], set_title: SetTitle | None) -> None:
        """Fork it, before there is any worker.

        Raises:
            OSError: There is no process to be had.
        """
        self._pid = kernel.fork(lambda: self._main(mask, set_title), leader=False)
        self.handover.keep_giving()

    def _main(self, mask: frozenset[int], set_title: SetTitle | None) -> int:
        # What stops the master is no reason to leave before it: a terminal's signals reach the whole group.
        traps: dict[int, signals.Trap] = dict.fromkeys((*signals.MANAGED, signal.SIGPIPE), signals.IGNORE)
        for function, arguments in signals.child_calls(signals.plain(traps)):
            function(*arguments)
        signals.unblock(mask)
        if set_title is not None:
            set_title("pyworkers: output")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        _raise_limit()
        return Printer(self.handover, self._width, self._patience_s).run()

    def finish(self) -> None:
        """In the master, when all workers are gone: let it print what there is, and see it off."""
        if self._pid is None:
            return
        if not self.handover.end(END_PATIENCE_S * 2):
            process.send(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _raise_limit() -> None:
    # A pipe or two for each worker.
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
