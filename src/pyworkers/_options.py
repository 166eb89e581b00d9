"""The table of options: how each is read from text, what it may be, what the help says.

One table serves the constructor of App, the decorator, the flags and the PYWORKERS_ variables, so that an option
cannot mean two things. Durations are in seconds; defaults are the business of `_settings`, values that of `_values`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyworkers import _values as v
from pyworkers._core.records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Scope = Literal["instance", "worker", "run"]


@record
class Option:
    """One row of the table.

    Attributes:
        parse: Turns text of a flag or a variable into a value; raises ValueError with what was expected.
        check: Returns the value in its final form; raises ValueError with what was expected.
        metavar: What the help shows for the value; None for a switch.
        spelling: How flag and variable name it, where that is not its name.
    """

    name: str
    scope: Scope
    parse: Callable[[str], object]
    check: Callable[[object], object]
    metavar: str | None
    help: str
    spelling: str | None = None

    @property
    def flag(self) -> str:
        """The long flag."""
        return "--" + (self.spelling or self.name).replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "PYWORKERS_" + (self.spelling or self.name).upper()


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("name", "instance", str, v.check_text, "NAME", "the instance's name in logs (default: the module's)"),
        Option(
            "workers", "instance", v.parse_int, v.check_count, "N",
            "number of PINs where a handler has no pins of its own",
        ),
        Option(
            "normal_exit_codes", "instance", v.parse_int_list, v.check_some_codes, "CODE[,CODE...]",
            "exit codes that end a PIN for good (default: 0)",
        ),
        Option(
            "permanent_failure_codes", "instance", v.parse_int_list, v.check_codes, "CODE[,CODE...]",
            "exit codes after which a PIN has failed for good (default: none)",
        ),
        Option("lock_file", "instance", str, v.check_path, "FILE", "allow a single instance, by a lock on this file"),
        Option(
            "strict", "instance", v.parse_switch, v.check_flag, None,
            "refuse to start where the fork-safety audit has findings",
        ),
        Option(
            "debug", "instance", v.parse_switch, v.check_flag, None,
            "log at level DEBUG, and show tracebacks of a bad app",
        ),
        Option(
            "restart", "worker", str, v.check_one_of("on-failure", "always", "never"), "on-failure|always|never",
            "which ends of a worker are followed by a new one (default: on-failure)",
        ),
        Option(
            "backoff", "worker", v.parse_number_list, v.check_backoff, "FIRST,MAX",
            "seconds between respawns of a worker that lives less than a second (default: 0.1,30)",
        ),
        Option(
            "max_restarts", "worker", v.parse_maybe(int), v.check_restarts, "N",
            "more restarts of a PIN than this in restart_period, and it has failed (default: off)",
        ),
        Option(
            "restart_period", "worker", v.parse_number, v.check_period, "SECONDS", "for max_restarts (default: 60)",
        ),
        Option(
            "stop_timeout", "worker", v.parse_number, v.check_seconds, "SECONDS",
            "from the polite TERM to KILL; QUIT comes at 80 %% of it (default: 8)",
        ),
        Option(
            "cooperative", "worker", v.parse_switch, v.check_maybe_flag, None,
            "stop workers only at their checkpoints (default: those that have any)",
        ),
        Option(
            "hang_timeout", "worker", v.parse_maybe(float), v.check_maybe_seconds(0.1), "SECONDS",
            "longest time between two checkpoints, then the worker is replaced (default: off)",
        ),
        Option(
            "max_runtime", "worker", v.parse_maybe(float), v.check_maybe_seconds(1.0), "SECONDS",
            "recycle a worker at a checkpoint after about this time (default: off)",
        ),
        Option(
            "max_rss", "worker", v.parse_maybe(str), v.check_size, "BYTES",
            "recycle a worker that has more private memory, such as 300M (default: off)",
        ),
        Option(
            "kill_group", "worker", v.parse_switch, v.check_flag, None,
            "let no process of a worker's process group survive it (default: on; --no-kill-group)",
        ),
        Option(
            "group", "worker", v.parse_maybe(str), v.check_group, "NAME",
            "the group of workers that a worker is in (default: off)",
            # --group is the other kind of group, as in gunicorn and everywhere else.
            "worker_group",
        ),
        Option(
            "strategy", "worker", str, v.check_one_of("one", "all"), "one|all",
            "what is restarted when a worker of a group fails: that one (default), or all of the group",
        ),
        Option(
            "spares", "worker", v.parse_spare_count, v.check_spares, "N",
            "warm processes of a handler that wait to take any of its PINs (default: 0)",
        ),
        Option(
            "if_running", "run", str, v.check_if_running, "exit|fail|wait[:SECONDS]",
            "what to do where the lock is taken: leave with 0 (default), leave with 75, or wait",
        ),
        Option(
            "shard", "run", str, v.check_shard, "K/N",
            "run every Nth PIN from the Kth on; slurm/N, kubernetes/N, nomad/N, mpi/N and env:NAME/N find out K",
        ),
        Option(
            "lease", "run", str, v.check_lease, "URL",
            "run a PIN only while its row in this database is held (needs pyworkers[postgres])",
        ),
        Option(
            "lease_ttl", "run", v.parse_number, v.check_ttl, "SECONDS",
            "how long a row is held without a renewal (default: 30)",
        ),
        Option(
            "lease_wait", "run", v.parse_maybe(float), v.check_maybe_seconds(0.0), "SECONDS",
            "how long a PIN may wait for its row before the instance leaves with 75 (default: off)",
        ),
        Option(
            "run_id", "run", str, v.check_run_id, "ID",
            "with --lease: a PIN that has ended normally is not started again in the run of this name",
        ),
        Option(
            "standby", "run", v.parse_switch, v.check_flag, None,
            "with --lease: take only what others leave alone for lease_ttl",
        ),
        Option(
            "syslog", "run", v.parse_syslog, v.check_address, "ADDRESS",
            f"log to syslog (default address: {v.SYSLOG_DEFAULT})",
        ),
        Option(
            "daemon", "run", v.parse_switch, v.check_flag, None,
            "run in the background with --syslog; return when all are up",
        ),
        Option(
            "metrics_address", "run", v.parse_maybe(str), v.check_place, "HOST:PORT",
            "serve metrics for Prometheus there (needs pyworkers[metrics])",
        ),
        Option(
            "reload", "run", v.parse_switch, v.check_flag, None,
            "for development: reload when a Python file changes (needs pyworkers[reload])",
        ),
        Option(
            "notify_fd", "run", v.parse_descriptor, v.check_descriptor, "N",
            "write a newline to this descriptor when all are up, as s6 and dinit expect",
        ),
        Option(
            "log_format", "run", str, v.check_one_of("text", "json"), "text|json",
            "log lines for people (default), or a JSON object in each",
        ),
        Option(
            "prefix_output", "run", v.parse_switch, v.check_flag, None,
            "print what workers write to stdout and stderr line by line, with handler and PIN in front",
        ),
        Option(
            "user", "run", str, v.check_account, "NAME|UID",
            "the user that workers become, where the master is root (default: they stay root)",
        ),
        Option(
            "unix_group", "run", str, v.check_account, "NAME|GID",
            "the Unix group that workers become (default: that of --user)",
            "group",
        ),
        Option("umask", "run", str, v.check_umask, "MODE", "the umask of workers, in octal (default: the master's)"),
    )
}  # fmt: skip
