"""The database of leases as a model: what `pyworkers._lease.postgres` says in SQL, in Python. A test compares the two."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from pyworkers._core.lease import CLAIMS_MAX, Renewal, Reply, Request
from pyworkers._core.types import Pin


@dataclass(frozen=True)
class Client:
    """Who asks."""

    owner: str
    ttl: float
    run: str | None = None
    attempt: tuple[str, int] | None = None


@dataclass
class Row:
    """One PIN's row."""

    owner: str | None = None
    epoch: int = 0
    renewal: int = 0
    ttl: float = 0.0
    attempt: tuple[str, int] | None = None
    done_run: str | None = None

    @property
    def mark(self) -> Renewal:
        return (self.owner or "", self.renewal)


class Database:
    """The rows, found by PIN, and by what stands in them."""

    def __init__(self) -> None:
        self.rows: dict[Pin, Row] = {}
        self._by_mark: defaultdict[Renewal, set[Pin]] = defaultdict(set)
        self._claims: dict[int, tuple[tuple[Pin, ...], frozenset[Pin]]] = {}

    def prepare(self, pins: tuple[Pin, ...]) -> None:
        """Make the rows that are missing."""
        for pin in pins:
            if pin not in self.rows:
                self.rows[pin] = Row()
                self._by_mark[self.rows[pin].mark].add(pin)

    def carry_out(self, request: Request, client: Client) -> Reply:
        """Do what a request asks for."""
        renewed = frozenset(pin for pin, epoch in request.renew.items() if self._is_ours(pin, epoch, client))
        for pin in renewed:
            self._change(pin, renewal=request.number)
        for pin, (epoch, done) in request.give.items():
            if self._is_ours(pin, epoch, client):
                done_run = client.run if done and client.run is not None else self.rows[pin].done_run
                self._change(pin, owner=None, done_run=done_run)
        claim = self._claim(request)
        granted = self._grant(request, client, claim) if claim else {}
        done = frozenset(pin for pin in claim if self._is_done(pin, client)) if client.run is not None else frozenset()
        return Reply(request.number, renewed, granted, done, self._seen(request, client, claim))

    def _is_ours(self, pin: Pin, epoch: int, client: Client) -> bool:
        return self.rows[pin].owner == client.owner and self.rows[pin].epoch == epoch

    def _is_done(self, pin: Pin, client: Client) -> bool:
        return client.run is not None and self.rows[pin].done_run == client.run

    def _is_late(self, row: Row, client: Client) -> bool:
        """Return whether a later attempt of the same job has had the row."""
        if row.attempt is None or client.attempt is None:
            return False
        (job, last), (asking, number) = row.attempt, client.attempt
        return job == asking and last > number

    def _claim(self, request: Request) -> frozenset[Pin]:
        # A standby of 100,000 PINs asks for the same ones again and again.
        known = self._claims.get(id(request.claim))
        if known is None or known[0] is not request.claim:
            if len(self._claims) > 10_000:
                self._claims.clear()
            known = self._claims[id(request.claim)] = (request.claim, frozenset(request.claim))
        return known[1]

    def _grant(self, request: Request, client: Client, claim: frozenset[Pin]) -> dict[Pin, int]:
        candidates: set[Pin] = set()
        for mark, pins in self._by_mark.items():
            if mark[0] == client.owner or (not mark[0] and request.fresh) or mark in request.expired:
                candidates |= pins & claim
        granted: dict[Pin, int] = {}
        for pin in sorted(candidates):
            row = self.rows[pin]
            if self._is_late(row, client) or self._is_done(pin, client):
                continue
            self._change(
                pin,
                owner=client.owner,
                epoch=row.epoch + 1,
                renewal=request.number,
                ttl=client.ttl,
                attempt=client.attempt or row.attempt,
            )
            granted[pin] = row.epoch
            if len(granted) == CLAIMS_MAX:
                break
        return granted

    def _seen(self, request: Request, client: Client, claim: frozenset[Pin]) -> dict[Renewal, float]:
        seen: dict[Renewal, float] = {}
        for mark, pins in self._by_mark.items() if claim else ():
            if mark[0] == client.owner or (not mark[0] and request.fresh):
                continue
            # All rows with the same mark have the same TTL.
            pin = next((pin for pin in pins if pin in claim and not self._is_done(pin, client)), None)
            if pin is not None:
                seen[mark] = self.rows[pin].ttl if mark[0] else client.ttl
        return seen

    def _change(self, pin: Pin, **values: object) -> None:
        row = self.rows[pin]
        marked = self._by_mark[row.mark]
        marked.discard(pin)
        if not marked:
            del self._by_mark[row.mark]
        for name, value in values.items():
            setattr(row, name, value)
        self._by_mark[row.mark].add(pin)
