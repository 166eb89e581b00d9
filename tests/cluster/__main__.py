"""`python -m cluster`: simulate a cluster on leases, from a seed, and print the figures; 1 where something did not hold.

Two scenes. In the first, every misfortune comes again and again, and only what must always hold is of interest. In the
second, a tenth of the hosts lose their power in an otherwise quiet cluster, and the figures are those of the README.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.world import Host, Violation, Weather, World
from pyworkers._core.types import Pin


@dataclass(frozen=True)
class Size:
    """How large the cluster is."""

    masters: int
    pins: int
    standbys: int
    ttl: float


def build(world: World, size: Size, *, run: str | None = None) -> None:
    """Start the masters, each with its share, and the standbys, each for all PINs, which no engine has started."""
    pins = [Pin(pin) for pin in range(size.pins)]
    for number in range(size.masters):
        world.add_host(pins[number :: size.masters], size.ttl, run=run, attempt=("job", 0))
    for _ in range(size.standbys):
        world.add_host(pins, size.ttl, standby=True, run=run)


def misfortunes(world: World, seconds: float, per_s: float, ttl: float) -> None:
    """Plan what goes wrong, at random instants of the time to come."""
    dice, begin = world.dice, world.now

    def someone(action: Callable[[Host], None]) -> Callable[[], None]:
        return lambda: action(dice.choice(world.hosts))

    def restart(host: Host) -> None:
        # As an engine does it: another attempt of the same shard, somewhere else, perhaps while the first still lives.
        pins = sorted(world.shares[host.number])
        attempt = None if host.client.attempt is None else (host.client.attempt[0], host.client.attempt[1] + 1)
        world.add_host(pins, host.client.ttl, run=host.client.run, attempt=attempt)

    def finish(host: Host) -> None:
        if host.live:
            world.finish(host, dice.choice(sorted(host.live)))

    kinds: list[Callable[[Host], None]] = [
        world.kill,
        world.crash,
        world.stop,
        restart,
        restart,
        restart,
        finish,
        lambda host: world.cut(host, dice.expovariate(1 / ttl)),
        lambda host: world.cut(host, dice.expovariate(1 / ttl)),
        lambda host: world.hold_up(host, dice.expovariate(1 / (3 * ttl))),
    ]
    for _ in range(int(seconds * per_s)):
        world.at(begin + dice.uniform(0, seconds), someone(dice.choice(kinds)))


def storm(seed: int, size: Size, seconds: float, per_s: float) -> World:
    """Play the first scene."""
    world = World(seed, Weather(loss=5, late=3, latency_s=0.05))
    build(world, size, run="run")
    misfortunes(world, seconds, per_s, size.ttl)
    world.run(seconds)
    return world


def loss_of_a_tenth(seed: int, size: Size) -> World:
    """Play the second scene: ten TTLs to settle, then the loss, then ten more."""
    world = World(seed, Weather(loss=0.1, late=0.1))
    build(world, size)
    world.run(10 * size.ttl)
    if world.free_count():
        raise Violation(f"{world.free_count()} PINs have no worker after ten TTLs")
    world.served.clear()
    for host in random.Random(seed).sample(world.hosts[: size.masters], size.masters // 10):
        world.kill(host)
    world.run(20 * size.ttl)
    if world.orphaned_at:
        raise Violation(f"{len(world.orphaned_at)} PINs were not taken over within ten TTLs")
    return world


def table(size: Size, world: World) -> str:
    """Return the figures as a row of the README's table."""
    seconds, times = 10 * size.ttl, sorted(world.taken_over_s)
    cells = (
        f"{size.masters:,}",
        f"{size.pins:,}",
        f"{size.ttl:g} s",
        f"{world.served['renewals'] / seconds:,.0f}",
        f"{world.served['rows renewed'] / seconds:,.0f}",
        f"{world.served['requests'] / seconds:,.0f}",
        f"{statistics.median(times):.1f} s",
        f"{times[-1]:.1f} s",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Parse the arguments, play, and print."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description="Simulate a cluster on leases, from a seed.")
    parser.add_argument("--seed", type=int, help="what to repeat (default: random)")
    parser.add_argument("--masters", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--pins", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--ttl", type=float, default=30.0, help="in seconds (default: %(default)s)")
    parser.add_argument(
        "--storms", type=int, default=20, help="how many small clusters in a storm (default: %(default)s)"
    )
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    began, started = time.monotonic(), 0
    try:
        for number in range(given.storms):
            world = storm(seed + number, Size(12, 60, 2, 6.0), seconds=1200, per_s=0.5)
            started += world.served["started"]
        print(f"{given.storms} storms, {started:,} workers started, {time.monotonic() - began:.1f} s", flush=True)
        if given.masters:
            size = Size(given.masters, given.pins, max(1, given.masters // 50), given.ttl)
            print(table(size, loss_of_a_tenth(seed, size)))
    except AssertionError as violation:
        print(f"violation: {type(violation).__name__}: {violation}")
        return 1
    print(f"nothing wrong, {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
