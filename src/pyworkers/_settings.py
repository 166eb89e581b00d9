"""The options with their defaults, each with its precedent, and where their values come from."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from pyworkers._core.records import record
from pyworkers._core.types import shown
from pyworkers._options import OPTIONS, Option
from pyworkers._values import SYSLOG_DEFAULT
from pyworkers.errors import DeclarationError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypedDict

    class WorkerOptions(TypedDict, total=False):
        """What can be said of one handler; said on App, it is the default for all of them."""

        restart: Literal["on-failure", "always", "never"]
        backoff: tuple[float, float]
        max_restarts: int | None
        restart_period: float
        stop_timeout: float
        cooperative: bool | None
        hang_timeout: float | None
        max_runtime: float | None
        max_rss: int | str | None
        kill_group: bool
        group: str | None
        strategy: Literal["one", "all"]
        spares: int


@record
class WorkerSettings:
    """The options of one handler, complete."""

    # OTP's transient, in the words of systemd and Docker: who has ended well has ended.
    restart: Literal["on-failure", "always", "never"] = "on-failure"
    # The first respawn is immediate; then 0.1 s, systemd's RestartSec=, doubling to the 30 s of einhorn.
    backoff: tuple[float, float] = (0.1, 30.0)
    # Unlimited: with a backoff of 30 s a crash loop costs nothing, and a database that comes back after an hour finds
    # its workers. systemd gives up after 5 in 10 s (StartLimitBurst=).
    max_restarts: int | None = None
    # A minute, for gunicorn's and everybody's idea of "again and again"; OTP's 5 s is made for cheap processes.
    restart_period: float = 60.0
    # Below the 10 s after which docker stop and supervisord (stopwaitsecs) kill the master itself.
    stop_timeout: float = 8.0
    # None finds out: a handler that calls checkpoint() is stopped there, any other where it stands.
    cooperative: bool | None = None
    # Off, as systemd's WatchdogSec=: only its author knows how long a unit may take.
    hang_timeout: float | None = None
    # Off, as systemd's RuntimeMaxSec= and gunicorn's max_requests.
    max_runtime: float | None = None
    # Off, as systemd's MemoryMax= and celery's worker_max_memory_per_child.
    max_rss: int | None = None
    # On, in the spirit of systemd's KillMode=control-group, but with KILL at once: what a dead worker leaves behind is
    # still at work on its PIN.
    kill_group: bool = True
    group: str | None = None
    # OTP's one_for_one.
    strategy: Literal["one", "all"] = "one"
    # Off: only a slow start is worth a process that waits, as with php-fpm's pm.min_spare_servers.
    spares: int = 0


@record
class InstanceSettings:
    """The options of the instance, complete."""

    # The importing module, as celery and flask name an app.
    name: str
    # How many PINs there are for the catch-all; None where every PIN is named. Not the number of CPUs, which in a
    # container is the host's.
    workers: int | None = None
    # The original's normalExitCode.
    normal_exit_codes: frozenset[int] = frozenset({0})
    # None: s6 takes 125, but a Python program may use any code for anything.
    permanent_failure_codes: frozenset[int] = frozenset()
    # Off, as in the original: whoever wants a single instance says where the lock is.
    lock_file: str | None = None
    # Off: a finding is a warning, since only the app's author can tell whether it matters.
    strict: bool = False
    # Off: level INFO. The original's debug also meant the foreground, which is our default.
    debug: bool = False


@record
class RunSettings:
    """How this one run is meant; not the app's business, so only flags and variables say it."""

    # The original's rule, made for cron: a second instance leaves quietly. A shard fails instead, since engines take 0
    # for work that is done.
    if_running: Literal["exit", "fail", "wait"] = "exit"
    # How long `wait` waits; None is for ever, as flock(1) does without --timeout.
    wait_s: float | None = None
    # Off: all PINs, whatever the environment says. Which K it is, `_shards` finds out.
    shard: str | None = None
    # The address of the syslog daemon; None logs to stderr, as every supervisor of containers expects.
    syslog: str | None = None
    daemon: bool = False
    # Off, and no address by default: a port is the administrator's to give away.
    metrics_address: str | None = None
    # Off: for development, as with gunicorn and uvicorn; elsewhere whoever deploys says when.
    reload: bool = False
    # s6 has no variable for it: only the command line of the service says which it is.
    notify_fd: int | None = None
    # For people; a collector of logs says so itself, as with gunicorn's and uvicorn's log configurations.
    log_format: Literal["text", "json"] = "text"
    # Off: for development, as with foreman and honcho; elsewhere the output is what the workers have made of it.
    prefix_output: bool = False
    # As systemd's User=, Group= and UMask=: nothing is changed that nobody has asked for.
    user: str | None = None
    unix_group: str | None = None
    umask: str | None = None
    # The URL of a database; None trusts whoever starts masters to start no two with the same PINs.
    lease: str | None = None
    # Three renewals of 10 s: in the order of a Kubernetes node's lease, which is 40 s.
    lease_ttl: float = 30.0
    # None is for ever: the other master may run for a year.
    lease_wait: float | None = None
    run_id: str | None = None
    standby: bool = False


def checked(option: Option, value: object, source: str) -> object:
    """Return the option's value in its final form.

    Raises:
        DeclarationError: The value is not what the option takes; `source` says in the text where it stands.
    """
    try:
        return option.check(value)
    except ValueError as error:
        raise DeclarationError(f"{source} must be {error}, got {shown(value)}") from None


def declared(given: Mapping[str, object], scopes: Collection[str], where: str) -> dict[str, object]:
    """Check options that stand in code, at `where` ("App" or "@app.worker of 'crawl'").

    Raises:
        DeclarationError: One is unknown or has a bad value.
    """
    known = [option.name for option in OPTIONS.values() if option.scope in scopes]
    for name in given:
        if name not in known:
            raise DeclarationError(f"{where} has no option '{name}'; its options are {', '.join(known)}")
    return {name: checked(OPTIONS[name], value, f"{name} of {where}") for name, value in given.items()}


def from_text(option: Option, text: str, source: str) -> object:
    """Return the option's value from a flag or a variable.

    Raises:
        UsageError: The text is not what the option takes.
    """
    try:
        return option.check(option.parse(text))
    except ValueError as error:
        raise UsageError(f"{source} must be {error}, got {text!r:.80}") from None


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the options that PYWORKERS_ variables set.

    Raises:
        UsageError: A variable's text is not what its option takes.
    """
    return {
        option.name: from_text(option, environ[option.variable], option.variable)
        for option in OPTIONS.values()
        if option.variable in environ
    }


def instance_settings(values: Mapping[str, Any]) -> InstanceSettings:
    """Pick the instance's options out of checked values."""
    return InstanceSettings(**_picked(values, InstanceSettings))


def worker_settings(values: Mapping[str, Any]) -> WorkerSettings:
    """Pick one handler's options out of checked values."""
    return WorkerSettings(**_picked(values, WorkerSettings))


def run_settings(values: Mapping[str, Any]) -> RunSettings:
    """Pick the options of the run out of checked values."""
    given = _picked(values, RunSettings)
    otherwise = "exit" if given.get("shard") is None else "fail"
    given["if_running"], given["wait_s"] = values.get("if_running", (otherwise, None))
    if given.get("daemon") and given.get("syslog") is None:
        given["syslog"] = SYSLOG_DEFAULT
    if given.get("standby") and given.get("lease") is None:
        raise UsageError("standby needs a lease: without, there is nothing to stand by for; see --lease")
    return RunSettings(**given)


def _picked(
    values: Mapping[str, Any], settings: type[InstanceSettings | RunSettings | WorkerSettings]
) -> dict[str, Any]:
    return {name: values[name] for name in settings.__match_args__ if name in values}


def without_password(text: str) -> str:
    """Return a database's URL without what is nobody's business; any other text as it is."""
    return re.sub(r"(//[^/@:]*:)[^/@]*@", r"\1...@", re.sub(r"([?&]password=)[^&]*", r"\1...", text))
