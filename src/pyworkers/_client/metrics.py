"""The metrics, by the conventions of Prometheus: base units, `_total` for counters, and no number in a label.

Each has the instance's name as a label, since the text of several instances may be read as one: node_exporter's
textfile collector does that. Pure functions of the reply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pyworkers._core.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Reply = Mapping[str, Any]
    Row = Mapping[str, Any]

STATES = (
    "starting", "running", "hung", "stopping", "killing", "backoff", "waiting", "finished", "failed", "abandoned",
)  # fmt: skip
"""Of a PIN. All of them are told, also where nobody is in one: a series that comes and goes cannot be summed up."""


@record
class Sample:
    """One number, and of what it is."""

    labels: Mapping[str, str]
    value: float


@record
class Family:
    """One metric.

    Attributes:
        name: Without the suffix that its kind gives to a sample.
        kind: Never the `info` of OpenMetrics, for which node_exporter's textfile collector refuses the whole text.
    """

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[Sample, ...]

    @property
    def unit(self) -> str:
        """What its values are measured in; empty for a plain number."""
        return "seconds" if self.name.endswith("_seconds") else ""

    @property
    def sample_name(self) -> str:
        """What stands before the labels."""
        return self.name + ("_total" if self.kind == "counter" else "")


def absent(name: str) -> list[Family]:
    """Return what can be told of an instance that does not answer."""
    return [_up(name, 0)]


def families(reply: Reply) -> list[Family]:
    """Return what a status tells; a family of which there is nothing to tell is left out."""
    name = {"name": str(reply["name"])}
    found = [
        _up(name["name"], 1),
        Family("pyworkers_info", "gauge", "The instance.", (Sample({**name, "app": reply["app"] or ""}, 1),)),
        Family("pyworkers_start_time_seconds", "gauge", "When the master started.", (Sample(name, reply["started"]),)),
        _by_state("pyworkers_workers", "How many PINs of a handler are in a state.", name, reply["workers"]),
        _by_state("pyworkers_spares", "How many spares of a handler are in a state.", name, reply["spares"]),
        *(_of_workers(*row, name, reply["workers"]) for row in _WORKERS),
        _last_exits(name, reply["workers"]),
    ]
    return [family for family in found if family.samples]


def _up(name: str, value: int) -> Family:
    return Family("pyworkers_up", "gauge", "Whether the master answers.", (Sample({"name": name}, value),))


def _by_state(metric: str, text: str, name: Mapping[str, str], rows: Iterable[Row]) -> Family:
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        of_handler = counts.setdefault(str(row["handler"]), dict.fromkeys(STATES, 0))
        of_handler[row["state"]] = of_handler.get(row["state"], 0) + 1
    samples = [
        Sample({**name, "handler": handler, "state": state}, count)
        for handler, of_handler in counts.items()
        for state, count in of_handler.items()
    ]
    return Family(metric, "gauge", text, tuple(samples))


def _of_workers(
    metric: str,
    kind: Literal["gauge", "counter"],
    text: str,
    value: Callable[[Row], float | None],
    name: Mapping[str, str],
    rows: Iterable[Row],
) -> Family:
    values = [(_labels(name, row), value(row)) for row in rows]
    return Family(metric, kind, text, tuple(Sample(labels, number) for labels, number in values if number is not None))


def _labels(name: Mapping[str, str], row: Row) -> dict[str, str]:
    return {**name, "handler": str(row["handler"]), "pin": str(row["pin"])}


def _last_exits(name: Mapping[str, str], rows: Iterable[Row]) -> Family:
    samples = [
        Sample({**_labels(name, row), "cause": str(row["last_exit"]["cause"])}, 1)
        for row in rows
        if row["last_exit"] is not None
    ]
    return Family("pyworkers_worker_last_exit_info", "gauge", "How the last worker of a PIN ended.", tuple(samples))


_WORKERS: tuple[tuple[str, Literal["gauge", "counter"], str, Callable[[Row], float | None]], ...] = (
    (
        "pyworkers_worker_up", "gauge", "Whether a PIN is served.",
        lambda row: int(row["state"] == "running" and not row["suspended"]),
    ),
    (
        "pyworkers_worker_start_time_seconds", "gauge", "When the worker of a PIN started.",
        lambda row: row["started"],
    ),
    (
        "pyworkers_worker_restarts", "counter", "How often a worker of a PIN was replaced.",
        lambda row: row["restarts"],
    ),
    (
        "pyworkers_worker_last_exit_time_seconds", "gauge", "When the last worker of a PIN ended.",
        lambda row: None if row["last_exit"] is None else row["last_exit"]["at"],
    ),
    (
        "pyworkers_worker_items_done", "gauge", "How many items the worker of a PIN has done, by App.track.",
        lambda row: row["done"],
    ),
    (
        "pyworkers_worker_items_expected", "gauge", "How many there are for it in all, where that is known.",
        lambda row: row["total"],
    ),
    (
        "pyworkers_worker_checkpoint_age_seconds", "gauge",
        "How long ago the worker of a PIN last proved that it reaches its checkpoints.",
        lambda row: row["checkpoint"],
    ),
)  # fmt: skip
