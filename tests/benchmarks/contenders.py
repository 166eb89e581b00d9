"""Who takes part: how each is started with so many workers, and whether it is there at all."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
MASTERS = HERE / "masters"
PROGRAM = shlex.join([sys.executable, "-S", str(MASTERS / "program.py")])


def _nothing(_directory: Path, _count: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to keep workers running.

    Attributes:
        command: Returns the command line for so many workers.
        environ: What its environment holds besides; `{count}` stands for the number of workers.
        respawns: Whether it replaces a worker that was killed.
        spares: How many processes of it have to be warm before a worker is killed.
        stops: Whether TERM to its master ends it with its workers.
        missing: Why it cannot take part; empty where it can.
        prepare: Lays what the command needs into the directory of the arena, where the command is then started.
    """

    name: str
    command: Callable[[int], list[str]]
    environ: dict[str, str]
    respawns: bool = True
    spares: int = 0
    stops: bool = True
    missing: str = ""
    prepare: Callable[[Path, int], None] = _nothing

    def environment(self, count: int) -> dict[str, str]:
        """Return what its environment holds besides."""
        paths = {"PYTHONPATH": f"{HERE}:{MASTERS}"}
        return {**paths, **{name: value.format(count=count) for name, value in self.environ.items()}}


def _script(name: str, *arguments: str) -> Callable[[int], list[str]]:
    return lambda count: [sys.executable, str(MASTERS / name), str(count), *arguments]


def _module(name: str, *arguments: str) -> Callable[[int], list[str]]:
    return lambda count: [sys.executable, "-m", name, *(argument.format(count=count) for argument in arguments)]


def _file(name: str, template: str) -> Callable[[Path, int], None]:
    def write(directory: Path, count: int) -> None:
        (directory / name).write_text(template.format(count=count, program=PROGRAM, descriptors=1024 + 4 * count))

    return write


def _compile(directory: Path, _count: int) -> None:
    if not (directory / "floor").exists():
        subprocess.run([CC, "-O2", "-o", directory / "floor", MASTERS / "floor.c"], check=True)


def _without(package: str) -> str:
    return "" if find_spec(package) else f"{package} is not installed"


def _without_pcntl() -> str:
    php = shutil.which("php")
    if php is None:
        return "there is no php"
    modules = subprocess.run([php, "-m"], capture_output=True, text=True, check=False).stdout.split()
    lacking = {"pcntl", "posix", "sockets"}.difference(modules)
    return f"php lacks {', '.join(sorted(lacking))}" if lacking else ""


CC = shutil.which("cc") or shutil.which("gcc") or ""

# It looks after its processes at each check and at no other time. The default is 5 seconds.
CIRCUS = """\
[circus]
check_delay = 0.1
endpoint = ipc://circus-endpoint
pubsub_endpoint = ipc://circus-pubsub
multicast_endpoint =

[watcher:work]
cmd = {program}
numprocesses = {count}
warmup_delay = 0
max_retry = -1
copy_env = True
"""

# Each process has up to three pipes. A process counts as started at once; else one that ends early waits for its turn.
SUPERVISOR = """\
[supervisord]
minfds = {descriptors}
minprocs = {descriptors}

[program:work]
command = {program}
process_name = %(program_name)s_%(process_num)s
numprocs = {count}
startsecs = 0
autorestart = true
stdout_logfile = NONE
stderr_logfile = NONE
"""


BARE = Contender("bare loop", _script("bare.py"), {})
BARE_WITH_IMPORTS = Contender("bare loop with imports", _script("bare.py", "--imports"), {})


def ours(name: str, *, spares: int = 0, **switched_on: object) -> Contender:
    """Return pyworkers with more of what `masters/ours.py` can do; `spares=1` becomes BENCHMARK_SPARES=1."""
    on = {"spares": spares, **switched_on}
    environ = {f"BENCHMARK_{key.upper()}": str(value) for key, value in on.items()}
    command = [sys.executable, "-m", "pyworkers", "ours:app"]
    return Contender(name, lambda _count: command, {"BENCHMARK_COUNT": "{count}", **environ}, spares=spares)


OURS = ours("pyworkers")
OURS_WITH_SPARE = ours("pyworkers, spares=1", spares=1)

FLOOR = Contender(
    "C", lambda count: ["./floor", str(count)], {}, missing="" if CC else "there is no C compiler", prepare=_compile
)
PCNTL = Contender(
    "PHP pcntl", lambda count: ["php", str(MASTERS / "pcntl.php"), str(count)], {}, missing=_without_pcntl()
)
MULTIPROCESSING = Contender("multiprocessing", _script("mp.py"), {})
# TERM ends the parent alone.
TORNADO = Contender("tornado", _script("tornado_fork.py"), {}, stops=False, missing=_without("tornado"))
GUNICORN = Contender(
    "gunicorn",
    _module("gunicorn", "-c", str(MASTERS / "gunicorn_conf.py"), "gunicorn_worker:app"),
    {"BENCHMARK_COUNT": "{count}"},
    missing=_without("gunicorn"),
)
COTYLEDON = Contender("cotyledon", _script("cotyledon_service.py"), {}, missing=_without("cotyledon"))
CIRCUSD = Contender(
    "circus",
    _module("circus.circusd", "circus.ini"),
    {},
    missing=_without("circus"),
    prepare=_file("circus.ini", CIRCUS),
)
SUPERVISORD = Contender(
    "supervisor",
    _module("supervisor.supervisord", "-n", "-c", "supervisord.conf"),
    {},
    missing=_without("supervisor"),
    prepare=_file("supervisord.conf", SUPERVISOR),
)
# The end of one worker is the end of all.
HONCHO = Contender(
    "honcho",
    _module("honcho", "start", "-c", "work={count}"),
    {},
    respawns=False,
    missing=_without("honcho"),
    prepare=_file("Procfile", "work: exec {program}\n"),
)
PEERS: tuple[Contender, ...] = (
    FLOOR,
    PCNTL,
    MULTIPROCESSING,
    TORNADO,
    GUNICORN,
    COTYLEDON,
    CIRCUSD,
    SUPERVISORD,
    HONCHO,
)


def preloaded(contender: Contender, megabytes: int) -> Contender:
    """Return the same after it has loaded so much."""
    environ = {**contender.environ, "BENCHMARK_PRELOAD_MB": str(megabytes)}
    return dataclasses.replace(contender, name=f"{contender.name}, {megabytes} MB", environ=environ)
