"""What goes into a simulation, and what comes out of it: how an attempt goes, and what has happened when."""

from __future__ import annotations

from collections.abc import Mapping
from signal import valid_signals

from pyworkers._core.records import record
from pyworkers._core.types import Exited, ExitStatus, Signaled, shown
from pyworkers.errors import UsageError


class Life:
    """How one attempt goes in a simulation. `Life()` runs until it is stopped.

    Args:
        after: Seconds from its start to what the other arguments say.
        exit: It ends with this exit code.
        signal: It ends by this signal.
        hang: It reaches no checkpoint from then on, and only the interrupt or KILL ends it.
        leaves_after: Seconds that it needs to leave when it is asked to; `math.inf` for one that only KILL ends.

    Raises:
        UsageError: These do not go together.

    Example:
        >>> Life(exit=1, after=0.2)
        Life(exit=1, after=0.2)
    """

    __slots__ = ("after", "hang", "leaves_after", "status")

    def __init__(
        self,
        *,
        after: float = 0.0,
        exit: int | None = None,  # noqa: A002  (the log's word)
        signal: int | None = None,
        hang: bool = False,
        leaves_after: float = 0.0,
    ) -> None:
        if (exit is not None) + (signal is not None) + hang > 1:
            raise UsageError("a Life has one of exit, signal and hang")
        if exit is None and signal is None and not hang and after:
            raise UsageError(f"what happens after {after} s? A Life with `after` has one of exit, signal and hang")
        for name, seconds in (("after", after), ("leaves_after", leaves_after)):
            if not seconds >= 0:
                raise UsageError(f"{name} of a Life is a number of seconds from 0 on, got {shown(seconds)}")
        if exit is not None and not 0 <= exit <= 255:
            raise UsageError(f"exit of a Life is an exit code of 0 to 255, got {shown(exit)}")
        if signal is not None and signal not in valid_signals():
            raise UsageError(f"signal of a Life is a signal of signal(7), got {shown(signal)}")
        self.after = after
        self.status: ExitStatus | None = Exited(exit) if exit is not None else None
        if signal is not None:
            self.status = Signaled(int(signal))
        self.hang = hang
        self.leaves_after = leaves_after

    def __repr__(self) -> str:
        match self.status:
            case Exited(code):
                what = [f"exit={code}"]
            case Signaled(signum):
                what = [f"signal={signum}"]
            case _:
                what = ["hang=True"] if self.hang else []
        what += [f"after={self.after}"] if self.after else []
        what += [f"leaves_after={self.leaves_after}"] if self.leaves_after else []
        return f"Life({', '.join(what)})"


@record
class SimulatedAttempt:
    """One process of a PIN in a simulation; instants in seconds from the start of the instance.

    Attributes:
        attempt: Which process of the PIN it is, from 1.
        ended: None where it still lives at the end of the simulation.
        cause: As of a `FailureRecord`: `exit=41`, `signal=SIGKILL`, `hang`; None while it lives.
        follows: "respawn", "group" (a respawn with the whole group), "finished", "stopped" or "failed"; None likewise.
        delay: Seconds from its end to the next attempt's start; None where none has started.
    """

    handler: str
    pin: int
    attempt: int
    started: float
    ended: float | None = None
    cause: str | None = None
    follows: str | None = None
    delay: float | None = None

    def __str__(self) -> str:
        who = f"{self.started:.3f} {self.handler} pin={self.pin} attempt={self.attempt}"
        if self.ended is None:
            return f"{who} runs"
        delay = "" if self.delay is None else f" in {self.delay:.3f}s"
        return f"{who} {self.cause} after={self.ended - self.started:.3f}s; {self.follows}{delay}"


@record
class Timeline:
    """What happened in a simulation. As text it has a line for each attempt.

    Attributes:
        attempts: In the order of their starts.
        seconds: How long it went on: to the end of the instance, if that came.
        exit_code: The master's; None where the instance still runs.
        failed: The PINs that were given up, and when.
    """

    attempts: tuple[SimulatedAttempt, ...]
    seconds: float
    exit_code: int | None
    failed: Mapping[int, float]

    def of(self, who: int | str) -> tuple[SimulatedAttempt, ...]:
        """Return the attempts of a PIN, or those of a handler by its name."""
        return tuple(attempt for attempt in self.attempts if who in (attempt.pin, attempt.handler))

    def backoff(self, who: int | str) -> float:
        """Return the seconds in which a PIN, or all of a handler's together, waited for the next attempt."""
        return sum(attempt.delay or 0.0 for attempt in self.of(who))

    def __str__(self) -> str:
        how = "still runs" if self.exit_code is None else f"ended with {self.exit_code}"
        failed = f", failed={','.join(map(str, self.failed))}" if self.failed else ""
        return "\n".join([*map(str, self.attempts), f"{self.seconds:.3f} the instance {how}{failed}"])
