"""What can be asked of a running master by its control socket, verb by verb.

Each checks its arguments, and does it or says why not. A verb decides nothing about workers: it feeds the core an
event, as a signal does, and tells what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.records import record
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.typed import cast
from pyworkers._core.types import Pin, is_spare, shown
from pyworkers._logs import ERROR
from pyworkers._master.control import Answer, BadRequestError, Reply, refusal
from pyworkers._master.execute import Executor
from pyworkers._master.status import Status
from pyworkers._posix.sockets import Peer

KINDS = {"graceful": m.StopKind.GRACEFUL, "quick": m.StopKind.QUICK, "kill": m.StopKind.KILL}


@record
class Facts:
    """What a status says of the instance, and never changes.

    Attributes:
        stop_timeout: The longest of all workers.
    """

    name: str
    app: str | None
    pid: int
    lock_file: str | None
    stop_timeout: float


class Verbs:
    """The verbs of one instance.

    Args:
        feed: Lets the core decide on an event, carries that out, and returns the decision.
        now: The monotonic clock.
    """

    def __init__(
        self,
        facts: Facts,
        core: Supervisor,
        executor: Executor,
        feed: Callable[[m.Event], list[m.Effect]],
        now: Callable[[], float],
    ) -> None:
        self._facts = facts
        self._core = core
        self._executor = executor
        self._feed = feed
        self._now = now
        self._started_at = now()
        offset_s = time.time() - self._started_at
        self._started_wall = round(time.time(), 3)
        self._status = Status(executor, offset_s)
        self._verbs: Mapping[str, Callable[[Reply, Peer, Answer], None]] = {
            "ping": self._ping,
            "status": self._tell_status,
            "stop": self._stop,
        }

    def answer(self, request: dict[str, object], peer: Peer, answer: Answer) -> None:
        """Do what the request asks for, and answer; never raises."""
        name = request.pop("verb", None)
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            answer(refusal(f"expected a verb, one of {', '.join(self._verbs)}, got {shown(name)}"))
            return
        try:
            verb(request, peer, answer)
        except BadRequestError as error:
            answer(refusal(f"{name}: {error}"))
        except Exception as error:  # noqa: BLE001  (a defect in an answer must not end the master of all workers)
            self._executor.log(ERROR, f"control request failed verb={name}: {type(error).__name__}: {error}")
            answer(refusal(f"{name}: internal error: {type(error).__name__}: {error}"))

    def _ping(self, arguments: Reply, _peer: Peer, answer: Answer) -> None:
        _nothing_else(arguments)
        answer({"ok": True, "name": self._facts.name, "pid": self._facts.pid})

    def _tell_status(self, arguments: Reply, _peer: Peer, answer: Answer) -> None:
        pins = self._pins(arguments)
        _nothing_else(arguments)
        now, states = self._now(), self._core.snapshot()
        facts = self._facts
        answer(
            {
                "ok": True,
                "name": facts.name,
                "app": facts.app,
                "pid": facts.pid,
                "started": self._started_wall,
                "uptime": round(now - self._started_at, 3),
                "state": self._core.phase.value,
                "lock_file": facts.lock_file,
                "code": None,
                "workers": self._status.workers(states, now, pins),
                "spares": self._status.spares(states, now),
            }
        )

    def _stop(self, arguments: Reply, peer: Peer, answer: Answer) -> None:
        kind = arguments.pop("kind", "graceful")
        _nothing_else(arguments)
        if not isinstance(kind, str) or kind not in KINDS:
            raise BadRequestError(f"kind must be one of {', '.join(KINDS)}, got {shown(kind)}")
        self._feed(m.StopRequested(KINDS[kind], f"stop pid={peer.pid}"))
        answer({"ok": True, "pid": self._facts.pid, "timeout": self._facts.stop_timeout})

    def _pins(self, arguments: Reply) -> frozenset[Pin] | None:
        """Take the PINs out of the arguments; None where there are none."""
        given = arguments.pop("pins", None)
        if given is None:
            return None
        told = shown(given)
        pins = cast("list[object]", given) if isinstance(given, list) else []
        if not pins:
            raise BadRequestError(f"pins must be a list of PINs, got {told}")
        return frozenset(self._pin(pin) for pin in pins)

    def _pin(self, given: object) -> Pin:
        # A bool is an int to Python, and no PIN to a person.
        if type(given) is not int or is_spare(Pin(given)) or given not in self._core.snapshot():
            raise BadRequestError(f"there is no PIN {shown(given)}")
        return Pin(given)


def _nothing_else(arguments: Reply) -> None:
    for name in arguments:
        raise BadRequestError(f"it takes no {shown(name)}")
