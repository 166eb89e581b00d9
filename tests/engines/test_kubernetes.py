"""What `export kubernetes` prints for shards, and what a pod does that is made of it. No cluster runs here.

The manifests are read by the strict schemas of Kubernetes, and by assertions of our own on what those cannot tell. The
pod is process 1 of a PID namespace, with the command and the environment of the manifest, and nothing else.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.hosts import need
from helpers import Bench, Instance, alive, children, runtime_in, until

TESTS = str(Path(__file__).parent.parent)
README = (Path(__file__).parents[2] / "README.md").read_text()
SHARDS = 8

APP = """
    from engines.overlap import live
    app = App("shop", stop_timeout=1)

    @app.worker(pins=range(20), stop_timeout=3)
    def crawl() -> None:
        live(app, here / "book")
"""


def validator():
    """Return the validator, or skip the test."""
    return pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")


def exported(bench: Bench, *arguments: str, source: str = APP) -> dict:
    """Return the one document that is printed."""
    yaml = pytest.importorskip("yaml", reason="needs kubernetes-validate, which brings PyYAML")
    bench.app(source)
    done = bench.run("export", "kubernetes", "shop:app", "--shards", str(SHARDS), *arguments, env={"PYTHONPATH": TESTS})
    assert (done.returncode, done.stderr) == (0, "")
    (document,) = yaml.safe_load_all(done.stdout)
    return document


def pod_of(document: dict) -> dict:
    return document["spec"]["template"]["spec"]


def problems(document: dict, stop_timeout: float) -> list[str]:
    """Return what is wrong with a manifest in a way that no schema sees."""
    pod = pod_of(document)
    (container,) = pod["containers"]
    (shard,) = [word for word in container["command"] if word.startswith("--shard=")]
    own = _of_job if document["kind"] == "Job" else _of_set
    checks = {
        "not the shards that there are": shard == f"--shard=kubernetes/{SHARDS}",
        "no time for the stop": pod["terminationGracePeriodSeconds"] > stop_timeout,
        **own(document["spec"], pod, container),
    }
    return [what for what, is_right in checks.items() if not is_right]


def _of_job(spec: dict, pod: dict, container: dict) -> dict[str, bool]:
    rules = spec["podFailurePolicy"]["rules"]
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    first = rules[0].get("onExitCodes", {})
    return {
        "not as many pods as shards": (spec["completions"], spec["parallelism"]) == (SHARDS, SHARDS),
        "backoffLimitPerIndex needs completionMode Indexed": spec["completionMode"] == "Indexed",
        "podFailurePolicy needs restartPolicy Never": pod["restartPolicy"] == "Never",
        "two pods of a shard": spec["podReplacementPolicy"] == "Failed",
        "an action that there is not": {rule["action"] for rule in rules}
        <= {"FailIndex", "Ignore", "Count", "FailJob"},
        "a usage error is tried again": (first.get("operator"), first.get("values")) == ("In", [2]),
        "a rule for a container that there is not": {code["containerName"] for code in codes} == {container["name"]},
    }


def _of_set(spec: dict, pod: dict, container: dict) -> dict[str, bool]:
    path = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"]}
    index = "metadata.labels['apps.kubernetes.io/pod-index']"
    return {
        "no index": path == {"JOB_COMPLETION_INDEX": index},
        "not all shards at once": (spec["replicas"], spec["podManagementPolicy"]) == (SHARDS, "Parallel"),
        "other pods than its own": spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"],
    }


@pytest.mark.parametrize("kind", ["Job", "StatefulSet"])
def test_schemas_accept_the_manifest(kind: str, bench: Bench) -> None:
    """Strictly, where a name that is not known is an error, in all versions from 1.29 to the newest."""
    validate = validator()
    versions = [version for version in validate.utils.all_versions() if int(version.split(".")[1]) >= 29]
    document = exported(bench, "--kind", kind)

    assert document["kind"] == kind
    assert len(versions) >= 9
    for version in versions:
        assert validate.validate(document, version, strict=True)


@pytest.mark.parametrize("arguments", [[], ["--kind", "Job"], ["--kind", "StatefulSet"]])
def test_manifest_keeps_its_promises(arguments: list[str], bench: Bench) -> None:
    """Those that no schema knows of; where nobody says, it is a Job."""
    document = exported(bench, *arguments)

    assert document["kind"] == (arguments[1:] or ["Job"])[0]
    assert problems(document, stop_timeout=3) == []
    assert problems(exported(bench, *arguments, "--stop-timeout=60"), stop_timeout=3) == []


def test_job_with_a_lease_is_a_run_of_its_own(bench: Bench) -> None:
    """Its pods know it by a label; a run that has a name keeps that, and what never ends is no run."""
    lease = "--lease=postgresql://db/jobs"
    label = "metadata.labels['batch.kubernetes.io/controller-uid']"
    document = exported(bench, lease)
    (item,) = pod_of(document)["containers"][0]["env"]

    assert item == {"name": "PYWORKERS_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": label}}}
    assert problems(document, stop_timeout=3) == []
    assert "env" not in pod_of(exported(bench, lease, "--run-id=mine"))["containers"][0]
    assert problems(exported(bench, lease, "--kind", "StatefulSet"), stop_timeout=3) == []


@pytest.mark.parametrize("url", ["postgresql://me:secret@db/jobs", "postgresql://db/jobs?user=me&password=secret"])
def test_password_is_not_exported(bench: Bench, url: str) -> None:
    """Neither is it shown; a manifest is read by many."""
    bench.app("app = App()\n@app.worker(pins=range(4))\ndef crawl():\n    pass\n")
    ended = bench.run("export", "kubernetes", "shop:app", "--shards=2", f"--lease={url}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("pyworkers: error: export: leave the password out of --lease (or PYWORKERS_LEASE)")

    shown = bench.run("check", "shop:app", f"--lease={url}")
    assert shown.returncode == 0
    assert "lease=postgresql://" in shown.stdout
    assert "secret" not in shown.stdout + shown.stderr + ended.stderr


def misspell(document: dict) -> None:
    document["spec"]["backofLimitPerIndex"] = document["spec"].pop("backoffLimitPerIndex")


def write_out(document: dict) -> None:
    document["spec"]["completions"] = "eight"


def invent_an_action(document: dict) -> None:
    document["spec"]["podFailurePolicy"]["rules"][0]["action"] = "FailIndx"


def forget_the_index(document: dict) -> None:
    document["spec"]["completionMode"] = "NonIndexed"


def restart_in_place(document: dict) -> None:
    pod_of(document)["restartPolicy"] = "OnFailure"


def replace_early(document: dict) -> None:
    document["spec"]["podReplacementPolicy"] = "TerminatingOrFailed"


def start_one_less(document: dict) -> None:
    document["spec"]["completions"] = document["spec"]["parallelism"] = SHARDS - 1


def be_short(document: dict) -> None:
    pod_of(document)["terminationGracePeriodSeconds"] = 3


def drain_first(document: dict) -> None:
    document["spec"]["podFailurePolicy"]["rules"].reverse()


@pytest.mark.parametrize("seen_by_schema", [misspell, write_out])
def test_schema_sees_a_broken_manifest(seen_by_schema: Callable[[dict], None], bench: Bench) -> None:
    """A name and a type."""
    validate = validator()
    document = exported(bench)
    seen_by_schema(document)

    with pytest.raises(validate.ValidationError):
        validate.validate(document, validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    "broken",
    [invent_an_action, forget_the_index, restart_in_place, replace_early, start_one_less, be_short, drain_first],
)
def test_assertions_see_a_broken_manifest(broken: Callable[[dict], None], bench: Bench) -> None:
    """What a schema takes, and the server or the app would not."""
    document = exported(bench)
    copied = copy.deepcopy(document)
    broken(copied)

    assert validator().validate(copied, validator().latest_version(), strict=True)
    assert len(problems(copied, stop_timeout=3)) == 1
    assert problems(document, stop_timeout=3) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kubernetes", "shop:app", "--kind", "Job"], "export kubernetes needs --shards N"),
        (["kubernetes", "shop:app", "--shards", "2", "--kind", "Deployment"], "is one of Job, StatefulSet"),
        (["slurm", "shop:app", "--shards", "2", "--kind", "Job"], "--kind goes with export kubernetes"),
        (["slurm", "shop:app"], "export slurm needs --shards N"),
        (["slurm", "shop:app", "--shards", "0"], "--shards must be an int of 1 to"),
        (["slurm", "shop:app", "--shards", "1_0"], "--shards must be an int of 1 to"),
        (["slurm", "shop:app", "--shards", "2", "--shard", "0/2"], "leave out --shard (or PYWORKERS_SHARD)"),
        (["slurm", "shop:app", "--shards", "2", "--daemon"], "leave out --daemon"),
        (["kubernetes", "shop:app", "--shards", "2", "--daemon"], "leave out --daemon"),
        (["systemd", "shop:app", "--shards", "2"], "--shards goes with export slurm and export kubernetes"),
        (["cron", "shop:app", "--shards", "2"], "not with export cron: use --shard K/N"),
        (["check", "shop:app", "--shards", "2"], "export needs one of"),
    ],
)
def test_bad_request_is_one_line(arguments: list[str], words: str, bench: Bench) -> None:
    """And code 2, and nothing on stdout that somebody could apply."""
    bench.app(APP)
    done = bench.run("export", *arguments, env={"PYTHONPATH": TESTS})

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


class Pod(Instance):
    """Process 1 of a PID namespace, started as a manifest says."""

    def __init__(self, directory: Path, document: dict, index: int) -> None:
        (self._container,) = pod_of(document)["containers"]
        self._host = f"shop-{index}"
        # What a Job's controller sets, or a StatefulSet's label; the image has its own path of programs and modules.
        environment = {item["name"]: item.get("value", str(index)) for item in self._container.get("env", ())}
        environment.setdefault("JOB_COMPLETION_INDEX", str(index))
        image = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": TESTS}
        ours = dict.fromkeys(os.environ)
        super().__init__(directory, "shop:app", env={**ours, **runtime_in(directory), **environment, **image})

    def _command(self, *_: str) -> list[str]:
        namespaces = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts")
        become = ("sh", "-c", 'hostname "$0" && exec "$@"', self._host)
        return [*namespaces, *become, *self._container["command"]]

    @property
    def pid(self) -> int:
        """The master's pid outside of the namespace."""
        return until(lambda: children(self.process.pid), "process 1")[0]


POD_APP = """
    app = App("shop", stop_timeout=3)

    @app.worker(pins=range(20))
    def crawl(pin: int) -> None:
        # Forks twice, as a daemon does: process 1 is the grandchild's parent as soon as the middle one has ended.
        middle = os.fork()
        if middle == 0:
            os.setsid()
            if os.fork() == 0:
                while os.getppid() != 1:
                    time.sleep(0.001)
                (here / f"adopted.{pin}").touch()
            os._exit(0)
        os.waitpid(middle, 0)
        try:
            app.sleep(3600)
        finally:
            with (here / "stops").open("a") as out:
                out.write(f"{os.uname().nodename} {pin} {app.shard}\\n")
"""


@pytest.fixture
def pod(bench: Bench, request: pytest.FixtureRequest) -> Pod:
    """The pod of index 3, with its three PINs at work and their grandchildren gone."""
    need("unshare")
    document = exported(bench, *getattr(request, "param", ()), source=POD_APP)
    made = Pod(bench.directory, document, 3)
    bench.instances.append(made)
    made.await_log("worker started", 3)
    until(lambda: len(list(bench.directory.glob("adopted.*"))) == 3, "the grandchildren")
    return made


@pytest.mark.parametrize("pod", [("--kind", "Job"), ("--kind", "StatefulSet")], indirect=True)
def test_pod_leaves_when_it_is_asked_to(pod: Pod, bench: Bench) -> None:
    """Every worker at its checkpoint, and with a code that no Job takes for success, in less than two seconds."""
    until(lambda: len(children(pod.pid)) == 3, "the workers alone: the grandchildren are reaped")
    began = time.monotonic()

    assert pod.stop() == 143
    assert time.monotonic() - began < 2
    assert sorted(bench.read("stops").splitlines()) == [f"shop-3 {pin} (3, 8)" for pin in (11, 19, 3)]


def test_killed_pod_leaves_nothing(pod: Pod) -> None:
    """The kernel ends a PID namespace with its process 1."""
    pids = [pod.pid, *until(lambda: len(found := children(pod.pid)) == 3 and found, "the workers alone")]

    pod.signal(signal.SIGKILL)

    until(lambda: not any(alive(pid) for pid in pids), "the end of all", 1)


def test_readme_says_what_no_cluster_has_run() -> None:
    """Nobody may take schemas and a PID namespace for a cluster."""
    assert re.search(r"(?i)no\s+kubernetes\s+cluster\s+has\s+run", README)
