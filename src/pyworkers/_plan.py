"""One run, decided: the options of all sources merged, each PIN mapped to its handler, and how `check` shows it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from pyworkers import _audit, _settings
from pyworkers._core import scheduler
from pyworkers._core.records import record
from pyworkers._core.typed import cast
from pyworkers._core.types import FIRST_SPARE, Pin, Restart, SlotPlan
from pyworkers._declare import Declaration
from pyworkers._settings import InstanceSettings, RunSettings, WorkerSettings, without_password
from pyworkers.errors import DeclarationError, ExitCode, UsageError


@record
class Plan:
    """One run, decided: the options with all their sources merged, and each PIN's handler.

    Attributes:
        assignment: The handler of each PIN, by its place in the declaration.
        workers: The options of each handler, in the same order.
        catch_all: The place of the handler that can have more PINs or fewer; None where there is no such handler, or
            only some of all PINs run: those that it could add may run elsewhere.
        shard: Which one of how many this is, whose PINs alone are in the assignment; None where it is all.
    """

    instance: InstanceSettings
    run: RunSettings
    assignment: Mapping[Pin, int]
    workers: tuple[WorkerSettings, ...]
    catch_all: int | None = None
    shard: tuple[int, int] | None = None

    @property
    def cut_codes(self) -> tuple[int, int]:
        """The exit codes for a stop, and for one by INT, that comes before all PINs have ended normally.

        Engines take 0 for work that is done: they would forget a shard that was merely asked to leave.
        """
        return (0, 0) if self.shard is None else (int(ExitCode.STOPPED), int(ExitCode.CUT_BY_INT))

    def spares(self) -> dict[Pin, int]:
        """Return the seats of the spares, and each one's handler; a handler without a PIN needs none."""
        places = sorted(set(self.assignment.values()))
        wanted = [place for place in places for _ in range(self.workers[place].spares)]
        return {Pin(FIRST_SPARE + number): place for number, place in enumerate(wanted)}

    def slot_plans(self) -> list[SlotPlan]:
        """Return what the core has to know of each PIN and spare."""
        pins = [self.slot_plan(pin, place) for pin, place in self.assignment.items()]
        return pins + [self._spare_plan(pin, place) for pin, place in self.spares().items()]

    def slot_plan(self, pin: Pin, place: int) -> SlotPlan:
        """Return the policy of a PIN of this handler."""
        worker = self.workers[place]
        return SlotPlan(
            pin,
            normal_exit_codes=self.instance.normal_exit_codes,
            permanent_failure_codes=self.instance.permanent_failure_codes,
            restart=Restart(worker.restart),
            backoff=worker.backoff,
            max_restarts=worker.max_restarts,
            restart_period=worker.restart_period,
            stop_timeout=worker.stop_timeout,
            hang_timeout=worker.hang_timeout,
            max_runtime=worker.max_runtime,
            max_rss=worker.max_rss,
            handler=place,
            group=worker.group if worker.strategy == "all" else None,
            leased=self.run.lease is not None,
        )

    def _spare_plan(self, pin: Pin, place: int) -> SlotPlan:
        """Return the policy of a spare: whatever ends it, another one is warmed."""
        worker = self.workers[place]
        return SlotPlan(
            pin,
            normal_exit_codes=frozenset(),
            restart=Restart.ALWAYS,
            backoff=worker.backoff,
            stop_timeout=worker.stop_timeout,
            handler=place,
        )


def plan(declaration: Declaration, given: Mapping[str, object], only: int | None = None) -> Plan:
    """Merge the options (flag before variable before code) and map the PINs; nothing is forked.

    Args:
        declaration: What the app declares.
        given: Checked values of flags.
        only: The one PIN to run; None for all.

    Raises:
        DeclarationError: The handlers' PINs do not add up.
        UsageError: A variable has a bad value, or there is no such PIN.
    """
    values = {**declaration.options, **_settings.from_environment(os.environ), **given}
    instance = _settings.instance_settings(values)
    try:
        assignment = scheduler.assign([spec.claim for spec in declaration.handlers], instance.workers)
    except scheduler.AssignmentError as error:
        raise DeclarationError(str(error)) from None
    run, shard = _settings.run_settings(values), None
    if run.shard is not None:
        # Not loaded for a run of all PINs.
        from pyworkers import _shards

        shard = _shards.resolve(run.shard, os.environ)
        instance = _shards.placed(instance, shard)
        assignment = scheduler.share(assignment, *shard)
    if only is not None:
        if only not in assignment:
            where = "no handler" if shard is None else f"no handler of {instance.name}"
            raise UsageError(f"--only {only}: {where} has this PIN; there are {_ranges(list(assignment))}")
        assignment = {Pin(only): assignment[Pin(only)]}
    workers = tuple(_settings.worker_settings({**values, **spec.options}) for spec in declaration.handlers)
    _check(declaration, instance, workers)
    catch_all = [place for place, spec in enumerate(declaration.handlers) if spec.claim.pins is None]
    scalable = catch_all[0] if catch_all and only is None and shard is None and run.lease is None else None
    if run.metrics_address is not None:
        _require("prometheus_client", "--metrics-address", "metrics")
    if run.reload:
        _require("watchfiles", "--reload", "reload")
    if run.lease is not None:
        _require("psycopg", "--lease", "postgres")
        if run.reload:
            raise UsageError("--reload and --lease (or their variables) exclude each other: leases are not handed over")
        if not hasattr(os, "memfd_create"):
            raise UsageError("--lease needs Linux: timers on a clock that counts while the machine sleeps, and memfds")
    return Plan(instance, run, assignment, workers, scalable, shard)


def _require(module: str, flag: str, extra: str) -> None:
    """Raise UsageError where the module that an option is made with is missing; it is not loaded."""
    from importlib.machinery import PathFinder

    if PathFinder.find_spec(module) is None:
        raise UsageError(f"{flag} needs a package that is not installed: pip install 'pyworkers[{extra}]'")


def _check(declaration: Declaration, instance: InstanceSettings, workers: tuple[WorkerSettings, ...]) -> None:
    """Raise DeclarationError where options are right one by one, and wrong together."""
    if both := instance.normal_exit_codes & instance.permanent_failure_codes:
        raise DeclarationError(
            f"exit code {min(both)} is in normal_exit_codes and in permanent_failure_codes: it can only be in one"
        )
    strategies: dict[str, tuple[str, str]] = {}
    for spec, worker in zip(declaration.handlers, workers, strict=True):
        if worker.group is None:
            if worker.strategy == "all":
                raise DeclarationError(f"worker '{spec.name}' has strategy 'all' but no group: name one by group=...")
            continue
        if worker.strategy == "all" and worker.restart == "never":
            raise DeclarationError(
                f"worker '{spec.name}' has restart 'never' and strategy 'all', which starts all of the group"
                f" '{worker.group}' again: choose one of them"
            )
        first, strategy = strategies.setdefault(worker.group, (spec.name, worker.strategy))
        if strategy != worker.strategy:
            raise DeclarationError(
                f"workers '{first}' and '{spec.name}' of group '{worker.group}' have different strategies,"
                f" '{strategy}' and '{worker.strategy}': a group has one"
            )


def describe(declaration: Declaration, given: Mapping[str, object]) -> tuple[str, bool]:
    """Return what `check` prints, and whether a run would start.

    It shows the PIN map, the options, and what the workers would share by mistake, as far as the import tells.
    """
    decided = plan(declaration, given)
    lines = [f"{decided.instance.name}: {len(decided.assignment)} PINs, {len(declaration.handlers)} handlers", ""]
    rows = [("PINs", "handler", "options")]
    for place, (spec, worker) in enumerate(zip(declaration.handlers, decided.workers, strict=True)):
        pins = [pin for pin, taken_by in decided.assignment.items() if taken_by == place]
        rows.append((_ranges(pins), spec.name, _shown(worker)))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines += [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]
    lines += ["", f"instance  {_shown(decided.instance)}", f"run       {_shown(decided.run)}", ""]
    findings = _audit.findings(decided.run.syslog)
    lines += [f"fork-safety: {finding}" for finding in findings] or ["fork-safety: nothing found"]
    return "\n".join(lines), not (findings and decided.instance.strict)


def _shown(settings: InstanceSettings | RunSettings | WorkerSettings) -> str:
    return " ".join(f"{name}={_plain(getattr(settings, name))}" for name in settings.__match_args__)


def _plain(value: object) -> str:
    if isinstance(value, frozenset | tuple):
        return ",".join(str(part) for part in sorted(cast(Iterable[int], value))) or "None"
    return without_password(str(value))


def _ranges(pins: list[Pin]) -> str:
    """Return `0-2,5` for 0, 1, 2 and 5."""
    parts: list[str] = []
    first = last = None
    for pin in [*pins, None]:
        if last is not None and pin == last + 1:
            last = pin
            continue
        if first is not None:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = pin
    return ",".join(parts)
