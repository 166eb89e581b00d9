"""What can be asked of a running master by its control socket, verb by verb.

Each checks its arguments, and does it or says why not. A verb decides nothing about workers: it feeds the core an
event, as a signal does, and tells what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from pyworkers._core import messages as m
from pyworkers._core.heir import Heir
from pyworkers._core.records import record
from pyworkers._core.supervisor import Supervisor
from pyworkers._core.typed import cast
from pyworkers._core.types import Pin, ProcessState, is_spare, shown
from pyworkers._logs import ERROR
from pyworkers._master import story
from pyworkers._master.control import Answer
from pyworkers._master.execute import Executor
from pyworkers._master.protocol import BadRequestError, Reply, refusal
from pyworkers._master.status import NAMES, Status
from pyworkers._posix import process
from pyworkers._posix.signals import DUMP
from pyworkers._posix.sockets import Peer

KINDS = {"graceful": m.StopKind.GRACEFUL, "quick": m.StopKind.QUICK, "kill": m.StopKind.KILL}


@record
class Facts:
    """What a status says of the instance, and never changes.

    Attributes:
        stop_timeout: The longest of all workers, and what is left to `on_stop`.
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
        started_at: When the master was started, by that.
    """

    def __init__(
        self,
        facts: Facts,
        core: Supervisor,
        executor: Executor,
        feed: Callable[[m.Event], list[m.Effect]],
        now: Callable[[], float],
        started_at: float,
    ) -> None:
        self._facts = facts
        self._core = core
        self._executor = executor
        self._feed = feed
        self._now = now
        self._started_at = started_at
        self._offset_s = time.time() - now()
        self._started_wall = round(started_at + self._offset_s, 3)
        self._status = Status(executor, self._offset_s)
        self._verbs: Mapping[str, Callable[[Reply, Peer, Answer], None]] = {
            "ping": self._ping,
            "status": self._tell_status,
            "history": self._tell_history,
            "stack": self._tell_stack,
            "stop": self._stop,
            "restart": self._restart,
            "scale": self._scale,
            "reload": self._reload,
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
                "code": self._code(),
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

    def _restart(self, arguments: Reply, peer: Peer, answer: Answer) -> None:
        pins = self._pins(arguments)
        _nothing_else(arguments)
        wanted = None if pins is None else tuple(sorted(pins))
        decision = self._feed(m.RestartRequested(f"restart pid={peer.pid}", wanted))
        match decision[0]:
            case m.RestartStarted(pins=started):
                answer({"ok": True, "pins": list(started), "timeout": self._facts.stop_timeout})
            case refused:
                answer(_refused(refused))

    def _scale(self, arguments: Reply, peer: Peer, answer: Answer) -> None:
        count = arguments.pop("count", None)
        _nothing_else(arguments)
        if type(count) is not int:
            raise BadRequestError(f"count must be an int, got {shown(count)}")
        decision = self._feed(m.ScaleRequested(f"scale pid={peer.pid}", count))
        match decision[0]:
            case m.Scaled(count=now, added=added, removed=removed):
                reply: Reply = {"count": now, "added": list(added), "removed": list(removed)}
                answer({"ok": True, **reply, "timeout": self._facts.stop_timeout})
            case refused:
                answer(_refused(refused))

    def _tell_history(self, arguments: Reply, _peer: Peer, answer: Answer) -> None:
        pin = self._pin(arguments.pop("pin", None))
        _nothing_else(arguments)
        now, states = self._now(), self._core.snapshot()
        (row,) = self._status.workers({pin: states[pin]}, now)
        plan = self._core.plan(pin)
        answer(
            {
                "ok": True,
                "name": self._facts.name,
                "now": round(now + self._offset_s, 3),
                "worker": row,
                "events": [
                    {"at": round(entry.at + self._offset_s, 3), **story.told(entry, plan)}
                    for entry in self._executor.history.entries(pin)
                ],
                "policy": story.policy_of(plan),
            }
        )

    def _tell_stack(self, arguments: Reply, _peer: Peer, answer: Answer) -> None:
        pin = self._pin(arguments.pop("pin", None))
        _nothing_else(arguments)
        state, pid = self._core.snapshot()[pin], self._executor.pid(pin)
        if not isinstance(state, ProcessState) or pid is None:
            raise BadRequestError(f"PIN {pin} has no process, it is {NAMES[type(state)]}")
        if DUMP is None or not process.catches(pid, DUMP):
            raise BadRequestError(f"pid {pid} of PIN {pin} runs another program, which would be ended by being asked")
        head: Reply = {"handler": self._executor.handler(pin), "pin": pin, "pid": pid}

        def tell(lines: list[str]) -> None:
            if lines:
                answer({"ok": True, **head, "stack": lines})
            else:
                how = process.condition(pid)
                answer(refusal(f"stack: pid {pid} of PIN {pin} does not answer; the kernel says of it: {how}"))

        if process.condition(pid).startswith("T"):
            # It would write when it goes on, and that would be taken for the stack of whoever is asked then.
            tell([])
            return
        self._executor.stacks.of_asked(pin, state.attempt, tell, self._now())

    def _reload(self, arguments: Reply, peer: Peer, answer: Answer) -> None:
        _nothing_else(arguments)
        reload = self._executor.reload
        if reload is None:
            raise BadRequestError("it cannot start its program anew")
        reload.request(f"reload pid={peer.pid}", reload_told(answer, self._facts.pid))

    def _code(self) -> Reply | None:
        """Return how the last reload went; None before the first."""
        if not isinstance(self._core, Heir):
            return None
        roll = self._core.roll
        how = "halted" if roll.halted is not None else "rolling" if roll.left_count else "complete"
        how = how if self._core.has_code else "failed"
        pin = roll.current if roll.halted is None else roll.halted
        return {"reload": how, "pin": pin, "left": roll.left_count, "done": roll.done_count}

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
            raise BadRequestError(f"there is no PIN {given if type(given) is int else shown(given)}")
        return Pin(given)


def _refused(effect: m.Effect) -> Reply:
    assert isinstance(effect, m.RequestRefused)
    return refusal(f"{effect.reason.partition(' ')[0]}: {effect.because}")


def reload_told(answer: Answer, pid: int) -> Callable[[str | None], None]:
    """Return what answers when a reload has ended."""

    def told(why: str | None) -> None:
        answer({"ok": True, "pid": pid} if why is None else refusal(f"reload: {why}"))

    return told


def _nothing_else(arguments: Reply) -> None:
    for name in arguments:
        raise BadRequestError(f"it takes no {shown(name)}")
