"""Masters, hosts, network and time around the database: everything that can go wrong does, from a seed.

Every master has a clock of its own, with another beginning and a somewhat different speed. Requests and answers are
late, very late, or lost; hosts are cut off, die, or hold their masters up. The workers are as bad as they may be: each
lives to the last instant that its master, or the guard beside it, allows.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.database import Client, Database
from pyworkers._core import lease as c
from pyworkers._core.types import NEVER, Pin

LIMIT = 0.8 * c.ANSWER


@dataclass(frozen=True)
class Weather:
    """How bad it is.

    Attributes:
        drift: The largest difference in speed between two clocks.
        loss: How many messages of a hundred are lost.
        late: How many arrive up to two TTLs late.
        latency_s: How long one takes else, on average.
    """

    drift: float = 0.01
    loss: float = 1.0
    late: float = 0.5
    latency_s: float = 0.005


class Violation(AssertionError):  # noqa: N818  (it is the test that fails, not the program)
    """What must always hold does not."""


@dataclass
class Host:
    """One master and its workers.

    Attributes:
        live: The workers, and until when the guard lets each live, by the clock of the host.
        cut: Whether no message comes through.
        dead: Whether it has lost its power.
        held_until: Until when its master does nothing (SIGSTOP).
        until: Until when the guard lets a worker of each row live.
        ended: Whom the guard has ended.
    """

    number: int
    lease: c.Lease
    client: Client
    begin: float
    speed: float
    live: dict[Pin, float] = field(default_factory=dict)
    cut: bool = False
    dead: bool = False
    held_until: float = 0.0
    timer_at: float = NEVER
    leaving: set[Pin] = field(default_factory=set)
    until: dict[Pin, float] = field(default_factory=dict)
    ended: set[Pin] = field(default_factory=set)

    def clock(self, now: float) -> float:
        return self.begin + self.speed * now

    def instant(self, local: float) -> float:
        return (local - self.begin) / self.speed


class World:
    """The cluster.

    Attributes:
        now: The true time, which nobody in it knows.
        served: What the database was asked for.
        taken_over_s: For each PIN that has lost its host, how long it had no worker.
    """

    def __init__(self, seed: int, weather: Weather) -> None:
        self.dice = random.Random(seed)
        self.weather = weather
        self.database = Database()
        self.hosts: list[Host] = []
        self.now = 0.0
        self.served: Counter[str] = Counter()
        self.taken_over_s: list[float] = []
        self.orphaned_at: dict[Pin, float] = {}
        self.done: set[Pin] = set()
        self.shares: dict[int, tuple[Pin, ...]] = {}
        self._holder: dict[Pin, Host] = {}
        self._epochs: dict[Pin, int] = {}
        self._attempts: dict[Pin, tuple[str, int]] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()

    def free_count(self) -> int:
        """Return how many PINs have no worker."""
        return len(self.database.rows) - len(self._holder)

    def at(self, instant: float, action: Callable[[], None]) -> None:
        """Let something happen at this true time."""
        heapq.heappush(self._queue, (max(instant, self.now), next(self._serial), action))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = until

    def add_host(
        self,
        pins: list[Pin],
        ttl: float,
        *,
        standby: bool = False,
        run: str | None = None,
        attempt: tuple[str, int] | None = None,
    ) -> Host:
        """Start a master."""
        number = len(self.hosts)
        lease = c.Lease(pins, f"host{number}", ttl, standby=standby)
        drift = self.weather.drift / 2
        host = Host(
            number,
            lease,
            Client(lease.owner, ttl, run, attempt),
            begin=self.dice.uniform(0, 1e6),
            speed=1 + self.dice.uniform(-drift, drift),
        )
        self.hosts.append(host)
        self.shares[number] = tuple(pins)
        self.database.prepare(tuple(pins))
        self.at(self.now + self.dice.uniform(0, ttl), lambda: self.feed(host, c.Elapsed()))
        return host

    # What may happen to a host.

    def kill(self, host: Host) -> None:
        """Cut its power."""
        host.dead = True
        for pin in list(host.live):
            self.orphaned_at[pin] = self.now
            self._end(host, pin)

    def cut(self, host: Host, for_s: float) -> None:
        """Pull its cable for a while."""
        host.cut = True

        def heal() -> None:
            host.cut = False

        self.at(self.now + for_s, heal)

    def hold_up(self, host: Host, for_s: float) -> None:
        """Suspend its master for a while; workers and guard go on."""
        host.held_until = max(host.held_until, self.now + for_s)
        # What has come meanwhile is heard before the time is looked at.
        self.at(host.held_until + 1e-6, lambda: self.feed(host, c.Elapsed()))

    def crash(self, host: Host) -> None:
        """Kill the master, whose workers finish what they are at, up to the last instant that the guard grants."""
        host.dead = True
        for pin in host.live:
            self.orphaned_at[pin] = self.now

    def finish(self, host: Host, pin: Pin) -> None:
        """Let a worker end normally."""
        if pin in host.live and pin not in host.leaving and not host.dead and host.held_until <= self.now:
            self._end(host, pin)
            self.feed(host, c.Vacated((pin,), done=True))

    def stop(self, host: Host) -> None:
        """Let a master stop: its workers end, its rows are given back."""
        if host.dead or host.held_until > self.now:
            return
        for pin in list(host.live):
            self._end(host, pin)
        self.feed(host, c.Vacated(tuple(self.database.rows)))

    # What goes on in it.

    def feed(self, host: Host, event: c.Event) -> None:
        """Let a master hear of something, as soon as it can."""
        if host.dead:
            return
        if host.held_until > self.now:
            self.at(host.held_until, lambda: self.feed(host, event))
            return
        for effect in host.lease.handle(event, host.clock(self.now)):
            self._carry_out(host, effect)
        self._set_timer(host)

    def _set_timer(self, host: Host) -> None:
        at = host.lease.next_deadline()
        instant = NEVER if at == NEVER else max(self.now, host.instant(at) + 1e-6)
        if instant < host.timer_at:
            host.timer_at = instant

            def ring() -> None:
                if host.timer_at == instant:
                    host.timer_at = NEVER
                    self.feed(host, c.Elapsed())

            self.at(instant, ring)

    def _carry_out(self, host: Host, effect: c.Effect) -> None:  # noqa: C901  (one clause for each effect)
        match effect:
            case c.Ask(request):
                self._send(host, request)
            case c.Extended(pins, stop_at):
                end_at = stop_at + host.client.ttl * (c.KILL - c.STOP)
                host.until.update(dict.fromkeys(pins, end_at))
                for pin in pins:
                    if pin in host.live:
                        host.live[pin] = end_at
                    elif pin in host.ended:
                        # The guard has ended it while the master was held up: a respawn, on the same row.
                        host.ended.discard(pin)
                        self._hold(host, pin)
                self.at(host.instant(end_at), lambda: self._guard(host))
            case c.Granted(pin, epoch):
                self._begin(host, pin, epoch)
            case c.Revoked(pins, kill_by, _):
                for pin in pins:
                    host.leaving.add(pin)
                    self.at(
                        host.instant(min(kill_by, host.live.get(pin, kill_by))), lambda pin=pin: self._leave(host, pin)
                    )
            case c.Done(pins):
                if not self.done.issuperset(pins):
                    raise Violation(f"{host.client.owner} takes {pins} for done")
            case c.Replace():
                # A master that was held up finds that it has waited for too long; the core has seen to it.
                self.served["helpers replaced"] += 1
            case c.Starved():
                raise Violation(f"{host.client.owner} gives up waiting, and was not told to")

    def _begin(self, host: Host, pin: Pin, epoch: int) -> None:
        if pin in self.done:
            raise Violation(f"pin {pin} is done, and started again at {self.now:.3f}")
        if epoch <= self._epochs.get(pin, 0):
            raise Violation(f"pin {pin} has epoch {epoch} after {self._epochs[pin]}")
        self._epochs[pin] = epoch
        if (attempt := host.client.attempt) is not None:
            # All of a world are of one job.
            last = self._attempts.setdefault(pin, attempt)
            if attempt < last:
                raise Violation(f"pin {pin} goes back from attempt {last} to {attempt} at {self.now:.3f}")
            self._attempts[pin] = attempt
        self._hold(host, pin)
        self.served["started"] += 1
        if (at := self.orphaned_at.pop(pin, None)) is not None:
            self.taken_over_s.append(self.now - at)

    def _hold(self, host: Host, pin: Pin) -> None:
        holder = self._holder.get(pin)
        if holder is not None:
            raise Violation(f"pin {pin} is held by {holder.client.owner} and {host.client.owner} at {self.now:.3f}")
        self._holder[pin], host.live[pin] = host, host.until[pin]

    def _leave(self, host: Host, pin: Pin) -> None:
        if pin in host.leaving:
            host.leaving.discard(pin)
            host.ended.discard(pin)
            if pin in host.live:
                self._end(host, pin)
            self.feed(host, c.Vacated((pin,), wanted=True))

    def _guard(self, host: Host) -> None:
        now = host.clock(self.now)
        for pin in [pin for pin, end_at in host.live.items() if end_at <= now + 1e-6]:
            self._end(host, pin)
            host.ended.add(pin)
            self.served["ended by the guard"] += 1

    def _end(self, host: Host, pin: Pin) -> None:
        del host.live[pin]
        if self._holder.pop(pin, None) is not host:
            raise Violation(f"pin {pin} ends on {host.client.owner}, which does not hold it")

    # The network and the database.

    def _send(self, host: Host, request: c.Request) -> None:
        self.at(host.instant(host.clock(self.now) + host.client.ttl * LIMIT), lambda: self._give_up(host, request))
        if self._arrives(host):
            self.at(self.now + self._latency(host), lambda: self._serve(host, request))

    def _serve(self, host: Host, request: c.Request) -> None:
        if host.cut:
            return
        self.served["requests"] += 1
        self.served["renewals"] += bool(request.renew)
        self.served["rows renewed"] += len(request.renew)
        reply = self.database.carry_out(request, host.client)
        self.done |= (
            {
                pin
                for pin, (_, done) in request.give.items()
                if done and self.database.rows[pin].done_run == host.client.run
            }
            if host.client.run is not None
            else set()
        )
        if self._arrives(host):
            self.at(self.now + self._latency(host), lambda: self._answer(host, reply))

    def _answer(self, host: Host, reply: c.Reply) -> None:
        # Nobody waits any more for the answer to a request that was given up: its connection is gone.
        if not host.cut:
            self.feed(host, c.Replied(reply))

    def _give_up(self, host: Host, request: c.Request) -> None:
        self.feed(host, c.RequestFailed(request.number))

    def _arrives(self, host: Host) -> bool:
        return not host.cut and not host.dead and self.dice.random() * 100 >= self.weather.loss

    def _latency(self, host: Host) -> float:
        if self.dice.random() * 100 < self.weather.late:
            return self.dice.uniform(0, 2 * host.client.ttl)
        return self.dice.expovariate(1 / self.weather.latency_s)
