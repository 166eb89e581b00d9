"""What `export` prints is read by those it is for: systemd itself, a shell as cron starts it, Kubernetes' schemas."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Bench, bench_in, until
from pyworkers._core.records import replace
from pyworkers._export import cron, kubernetes, systemd
from pyworkers._export.kinds import KINDS
from pyworkers._export.launch import Launch
from pyworkers.errors import UsageError
from systemd_manager import complaints, needs_systemd, understood

ODD = 'it\'s 50% of $HOME; "a\\b" & c'
"""A directory's name with all that a unit, a crontab or a shell could take for something else."""

APP = """
    app = App("shop", stop_timeout=3)

    @app.worker(pins=range(2))
    def crawl(pin):
        app.sleep(1000)

    @app.worker(pins=4, stop_timeout=20.5)
    def report():
        app.sleep(1000)
"""

LAUNCH = Launch(
    name="shop",
    target="shop:app",
    flags=(),
    variables={},
    said=frozenset(),
    lock_file=None,
    seats=3,
    stop_s=10,
    interpreter=sys.executable,
    directory="/srv/shop",
    user=None,
)


@pytest.fixture
def odd_bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench in a directory with an odd name, with an app."""
    (tmp_path / ODD).mkdir()
    with bench_in(tmp_path / ODD) as bench:
        bench.app(APP)
        yield bench


def exported(bench: Bench, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Return what `export` prints."""
    done = bench.run("export", *arguments, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def settings(unit: str) -> dict[str, str]:
    """Return the settings of a unit, as they stand there."""
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", unit))


# systemd


@needs_systemd
def test_systemd_takes_the_unit_without_a_word(bench: Bench) -> None:
    """`systemd-analyze verify` warns about each setting that it does not know, and each program that is not there."""
    bench.app(APP)
    unit = bench.directory / "shop.service"
    unit.write_text(exported(bench, "systemd", "shop:app", "--lock-file=lock", "--no-kill-group"))

    assert complaints(unit) == ""
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMod=mixed"))
    assert "KillMod" in complaints(unit)


@needs_systemd
def test_systemd_reads_what_was_meant(odd_bench: Bench) -> None:
    """Directory, command and environment come out of its parser as they went in, whatever characters they have."""
    odd = f"{odd_bench.directory}/50%% $x \"'\\"
    text = exported(odd_bench, "systemd", "shop:app", f"--lock-file={odd}", env={"PYWORKERS_NAME": 'a"%n\\b$c'})
    read = understood(text)

    assert read["WorkingDirectory"] == [str(odd_bench.directory)]
    assert read["Environment"] == ['PYWORKERS_NAME=a"%n\\b$c']
    # It shows the command line as a shell would need it.
    (command,) = [line for line in read["Command Line"] if "pyworkers" in line]
    said = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout
    words = [sys.executable, "-m", "pyworkers", "shop:app", f"--lock-file={odd}", "--if-running=fail"]
    assert said.splitlines() == words
    assert (read["Type"], read["KillMode"], read["Restart"]) == (["notify"], ["mixed"], ["on-failure"])
    assert (read["OOMPolicy"], read["WatchdogSec"]) == (["continue"], ["1min"])


@needs_systemd
@pytest.mark.parametrize("directory", ["/srv/ends in a backslash\\", "/srv/ends in a space ", "/srv/50%n"])
def test_directory_with_an_odd_end_takes_no_other_line_along(directory: str) -> None:
    """A backslash at the end of a line would go on with the next one."""
    read = understood(systemd.export(replace(LAUNCH, directory=directory)))

    assert [path.removesuffix("/.") for path in read["WorkingDirectory"]] == [directory]
    assert read["Command Line"][0].endswith("-m pyworkers shop:app")


def test_unit_leaves_the_stop_its_time(bench: Bench) -> None:
    """The longest stop_timeout of any handler, a second for the last one and one for Python; more for on_stop."""
    bench.app(APP)
    assert settings(exported(bench, "systemd", "shop:app"))["TimeoutStopSec"] == str(21 + 2)
    assert settings(exported(bench, "systemd", "shop:app", "--stop-timeout=60"))["TimeoutStopSec"] == str(60 + 2)
    bench.app(APP + "\n    @app.on_stop\n    def tell():\n        pass\n")
    assert settings(exported(bench, "systemd", "shop:app"))["TimeoutStopSec"] == str(21 + 2 + 10)


def test_unit_runs_what_it_was_exported_with(bench: Bench) -> None:
    """Flags become the command line's, variables the environment's."""
    bench.app(APP)
    unit = settings(
        exported(
            bench, "systemd", "shop:app", "--debug", "--no-strict", "--backoff", "1,2", env={"PYWORKERS_MAX_RSS": "9M"}
        )
    )

    assert unit["Environment"] == '"PYWORKERS_MAX_RSS=9M"'
    assert unit["ExecStart"] == f"{sys.executable} -m pyworkers shop:app --no-strict --debug --backoff=1,2"


def test_unit_fails_where_another_instance_holds_the_lock() -> None:
    """To leave with 0 as under cron would be taken for the end of all work; who asks for something else gets that."""
    held = replace(LAUNCH, lock_file="lock")
    asked = replace(held, said=frozenset({"if_running"}), flags=("--if-running=wait",))

    assert "--if-running=fail" in settings(systemd.export(held))["ExecStart"]
    assert settings(systemd.export(asked))["ExecStart"].endswith("shop:app --if-running=wait")
    assert "--if-running" not in settings(systemd.export(LAUNCH))["ExecStart"]


def test_unit_has_what_only_some_instances_need() -> None:
    """A user where it is not root who exports; room where there are many processes."""
    few = settings(systemd.export(LAUNCH))
    many = settings(systemd.export(replace(LAUNCH, user="ada", seats=5000)))

    assert (few.get("User"), few.get("TasksMax")) == (None, None)
    assert (many["User"], many["TasksMax"]) == ("ada", "infinity")


def test_unit_of_a_shard_takes_its_stop_for_a_clean_one() -> None:
    """A shard leaves with 143 where others leave with 0; `systemctl stop` is no failure."""
    shard = settings(systemd.export(replace(LAUNCH, said=frozenset({"shard"}), flags=("--shard=1/2",))))

    assert shard["SuccessExitStatus"] == "143"
    assert shard["ExecStart"].endswith("shop:app --shard=1/2")
    assert "SuccessExitStatus" not in systemd.export(LAUNCH)


# cron


def test_crontab_line_starts_the_instance_as_cron_would(odd_bench: Bench) -> None:
    """With its percent signs as crontab(5) wants them, in the directory and with the environment that it was made in."""
    odd_bench.directory.rename(odd_bench.directory.parent / ODD.replace("\\", ""))
    odd_bench.directory = odd_bench.directory.parent / ODD.replace("\\", "")
    text = exported(odd_bench, "cron", "shop:app", "--no-daemon", env={"PYWORKERS_NAME": "50%'"})
    (line,) = [line for line in text.splitlines() if not line.startswith("#")]
    assert line.startswith("* * * * * ")
    assert not re.search(r"(?<!\\)%", line)
    command = line.removeprefix("* * * * * ").replace("\\%", "%")

    # What the line runs is told by `check` in its place.
    checked = subprocess.run(
        ["/bin/sh", "-c", command.replace("-m pyworkers shop:app", "-m pyworkers check shop:app")],
        env={"HOME": "/", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert checked.stderr == ""
    assert checked.stdout.startswith("50%': 3 PINs")
    assert f"lock_file={odd_bench.directory}/50%'.lock" in checked.stdout


def test_crontab_line_has_a_lock_and_goes_to_the_background() -> None:
    """Without a lock, cron would start one more instance each minute; what is said already is not said again."""
    plain = cron.export(LAUNCH)
    told = cron.export(replace(LAUNCH, lock_file="lock", said=frozenset({"daemon"}), flags=("--no-daemon",)))

    assert plain.endswith(" -m pyworkers shop:app --lock-file=/srv/shop/shop.lock --daemon\n")
    assert told.endswith(" -m pyworkers shop:app --no-daemon\n")


def test_crontab_line_of_a_shard_finds_it_running_without_a_word() -> None:
    """To a shard, by default, that is a failure."""
    shard = replace(LAUNCH, lock_file="lock", said=frozenset({"shard"}), flags=("--shard=1/2",))
    asked = replace(shard, said=frozenset({"shard", "if_running"}), flags=("--shard=1/2", "--if-running=fail"))

    assert cron.export(shard).endswith("shop:app --shard=1/2 --if-running=exit --daemon\n")
    assert cron.export(asked).endswith("shop:app --shard=1/2 --if-running=fail --daemon\n")


def test_crontab_line_that_crons_would_read_differently_is_refused() -> None:
    """A backslash, and more than a line can hold."""
    with pytest.raises(UsageError, match="a backslash means different things"):
        cron.export(replace(LAUNCH, directory="/srv/a\\b"))
    with pytest.raises(UsageError, match="at most 998 bytes"):
        cron.export(replace(LAUNCH, directory="/srv/" + "a" * 1000))


# Kubernetes


def manifest(text: str) -> dict[str, object]:
    """Return the one document of a manifest."""
    yaml = pytest.importorskip("yaml", reason="needs kubernetes-validate, which brings PyYAML")
    (document,) = yaml.safe_load_all(text)
    return document  # type: ignore[no-any-return]


@pytest.mark.parametrize("version", ["1.25", "1.29", "1.33", "1.37"])
def test_kubernetes_schema_accepts_the_manifest(version: str, odd_bench: Bench) -> None:
    """In strict mode, in which a name that is not known is an error, in old versions and in new ones."""
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    document = manifest(exported(odd_bench, "kubernetes", "shop:app", "--debug", env={"PYWORKERS_NAME": 'a"\\b:#'}))

    assert validator.validate(document, version, strict=True) == version
    document["spec"]["replica"] = 1  # type: ignore[index]
    with pytest.raises(validator.ValidationError):
        validator.validate(document, version, strict=True)


def test_manifest_never_has_two_pods_and_no_shell(bench: Bench) -> None:
    """A StatefulSet of one; the master is process 1, and has the time for its stop."""
    bench.app(APP)
    document = manifest(
        exported(bench, "kubernetes", "shop:app", "--lock-file=/data/a lock", env={"PYWORKERS_MAX_RSS": "9M"})
    )

    spec: dict[str, object] = document["spec"]  # type: ignore[assignment]
    pod = spec["template"]["spec"]  # type: ignore[index]
    (container,) = pod["containers"]
    assert (document["kind"], spec["replicas"]) == ("StatefulSet", 1)
    assert pod["terminationGracePeriodSeconds"] == 21 + 2
    words = ["python", "-m", "pyworkers", "shop:app", "--lock-file=/data/a lock", "--if-running=wait"]
    assert container["command"] == words
    assert container["env"] == [{"name": "PYWORKERS_MAX_RSS", "value": "9M"}]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]  # type: ignore[index]


@pytest.mark.parametrize("shards", [(), ("--shards=2",)], ids=["StatefulSet", "Job"])
def test_kubernetes_expands_nothing_of_ours(bench: Bench, shards: tuple[str, ...]) -> None:
    """`$(NAME)` and `$$` mean something in a command and in a variable, and nothing in an exec probe."""
    bench.app(APP)
    odd, doubled = "/data/$(HOME)$$x$", "/data/$$(HOME)$$$$x$$"
    words = ("kubernetes", "shop:app", *shards, f"--lock-file={odd}")
    document = manifest(exported(bench, *words, env={"PYWORKERS_NAME": "a$(b)$$"}))
    (container,) = document["spec"]["template"]["spec"]["containers"]  # type: ignore[index]

    assert f"--lock-file={doubled}" in container["command"]
    assert {"name": "PYWORKERS_NAME", "value": "a$$(b)$$$$"} in container["env"]
    probes = manifest(kubernetes.export(replace(LAUNCH, target="a$(b):app")))["spec"]["template"]["spec"]["containers"]  # type: ignore[index]
    assert probes[0]["livenessProbe"]["exec"]["command"][-1] == "a$(b):app"


def test_probes_say_what_kubernetes_asks_for(bench: Bench) -> None:
    """Alive is who answers, also while a PIN is down; ready is who has all PINs up; the exec is as the manifest has it."""
    bench.app(
        """
        app = App("shop", backoff=(30, 30))

        @app.worker(pins=range(2))
        def crawl(pin):
            if pin == 1 and not (here / "good").exists():
                sys.exit(41)
            app.sleep(1000)
        """
    )
    document = manifest(exported(bench, "kubernetes", "shop:app"))
    (container,) = document["spec"]["template"]["spec"]["containers"]  # type: ignore[index]

    def asked(probe: str) -> int:
        (python, minus_m, package, *words) = container[probe]["exec"]["command"]
        assert (python, minus_m, package) == ("python", "-m", "pyworkers")
        return bench.run(*words).returncode

    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    assert [asked(probe) for probe in probes] == [4, 4, 4]
    instance = bench.start(None, *container["command"][4:])
    instance.await_log("respawning in")
    assert [asked(probe) for probe in probes] == [0, 0, 3]
    instance.stop()

    (bench.directory / "good").touch()
    bench.start()
    until(lambda: [asked(probe) for probe in probes] == [0, 0, 0], "all PINs up")


@pytest.mark.parametrize(
    ("name", "label"),
    [("shop", "shop"), ("My_Shop.2", "my-shop-2"), ("-_-", "app"), ("É", "app"), ("x" * 64, "x" * 52)],
)
def test_name_becomes_a_label(name: str, label: str) -> None:
    """RFC 1123: lower case, digits and hyphens, with room for the hash of a revision behind it."""
    found = manifest(kubernetes.export(replace(LAUNCH, name=name)))

    assert found["metadata"]["name"] == label  # type: ignore[index]


def test_modules_path_of_this_machine_stays_here(bench: Bench) -> None:
    """PYTHONPATH is in a unit and in a crontab, where the import needs it, and not in an image, which has its own."""
    launch = replace(LAUNCH, variables={"PYTHONPATH": "/srv/lib", "PYWORKERS_MAX_RSS": "9M"})

    assert 'Environment="PYTHONPATH=/srv/lib"' in systemd.export(launch)
    assert "PYTHONPATH=/srv/lib " in cron.export(launch)
    assert "PYTHONPATH" not in kubernetes.export(launch)
    bench.app(APP)
    assert "PYTHONPATH=" in exported(bench, "systemd", "shop:app", env={"PYTHONPATH": "/srv/lib"})


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["systemd", "shop:app", "--daemon"], "leave out --daemon"),
        (["kubernetes", "shop:app", "--daemon"], "leave out --daemon"),
        (["systemd", "shop:app", "--only", "1"], "--only and --inline go with run, not with export"),
        (["systemd", "shop:app", "--lock-file=a\nb"], "expected text that can be printed in one line"),
        (["systemd", "shop:app", "--stop-timeout=soon"], "--stop-timeout must be"),
        (["systemd", "shop"], "expected an import string"),
        (["systemd"], "the following arguments are required"),
        (["upstart", "shop:app"], "export needs one of systemd, cron, kubernetes"),
        ([], "export needs one of systemd, cron, kubernetes"),
    ],
)
def test_bad_request_is_one_line(arguments: list[str], words: str, bench: Bench) -> None:
    """And code 2, and nothing on stdout that somebody could install."""
    bench.app(APP)
    done = bench.run("export", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_app_that_cannot_run_is_not_exported(kind: str, bench: Bench) -> None:
    """Its PINs overlap."""
    bench.app(APP + "\n    @app.worker(pins=1)\n    def again():\n        pass\n")
    done = bench.run("export", kind, "shop:app", *(["--shards=2"] if kind == "slurm" else []))

    assert (done.returncode, done.stdout) == (2, "")
    assert "overlap" in done.stderr
