"""What a master says to the database of the leases, and what that says to it: see `pyworkers._core.lease`."""

from __future__ import annotations

from collections.abc import Mapping

from pyworkers._core.records import record
from pyworkers._core.types import Pin

CLAIMS_MAX = 256
"""Rows to be had by one request, so that those who wait share what a dead host has left, and no request is large."""

Renewal = tuple[str, int]
"""Who has renewed, and the number of that request: what makes one renewal different from every other."""


@record
class Request:
    """What to do in the database, all of it or nothing.

    Attributes:
        renew: Rows that are held, with their epochs.
        claim: Rows that are wanted; at most `CLAIMS_MAX` of them are to be had.
        fresh: Whether rows that nobody holds may be claimed, too.
        expired: Renewals that were seen for so long that rows which bear them are free.
        give: Rows to give back, with their epochs, and whether the PIN is done.
    """

    number: int
    renew: Mapping[Pin, int]
    claim: tuple[Pin, ...]
    fresh: bool
    expired: tuple[Renewal, ...]
    give: Mapping[Pin, tuple[int, bool]]


@record
class Reply:
    """What has come of a request.

    Attributes:
        renewed: Rows that were held until now, and still are.
        granted: Rows that are held from now on, with their epochs.
        done: Of the claimed rows, those whose PIN is done.
        seen: The renewals that stand in rows of others which were claimed, with the holder's TTL in seconds.
    """

    number: int
    renewed: frozenset[Pin]
    granted: Mapping[Pin, int]
    done: frozenset[Pin]
    seen: Mapping[Renewal, float]
