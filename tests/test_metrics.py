"""What a monitoring system is told: the text itself, a real Prometheus that reads it, and the helper that serves it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Bench, Instance, alive, children, open_files, state, until
from pyworkers._client import metrics, openmetrics
from pyworkers._master.status import NAMES

parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="needs prometheus-client")
plain_parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def row(pin: int, state: str = "running", **more: object) -> dict[str, Any]:
    """Return the row of a worker in the reply to `status`."""
    nothing = dict.fromkeys(("pid", "uptime", "started", "attempt", "last_exit", "delay", "unit", "done", "total"))
    return {"handler": "crawl", "pin": pin, "state": state, "suspended": False, "restarts": 0, "checkpoint": None, **nothing, **more}  # fmt: skip


def reply(*workers: dict[str, Any], spares: tuple[dict[str, Any], ...] = (), **more: object) -> dict[str, Any]:
    """Return a reply to `status`."""
    return {"v": 1, "ok": True, "name": "shop", "app": "shop:app", "pid": 7, "started": 1000.5, "uptime": 60.0,
            "state": "running", "lock_file": None, "code": None, "workers": list(workers), "spares": list(spares), **more}  # fmt: skip


def samples(text: str, parse: Any = parser) -> dict[tuple[str, ...], float]:
    """Parse a text strictly, and return its values by name and labels other than the instance's name."""
    return {
        (
            sample.name,
            *(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "name"),
        ): sample.value
        for family in parse.text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(*workers: dict[str, Any], **more: Any) -> dict[tuple[str, ...], float]:
    """Return the values that are told of these workers."""
    return samples(openmetrics.text(metrics.families(reply(*workers, **more))))


# The text


def test_text_is_as_the_standard_has_it() -> None:
    """Type, unit and help before the samples of a family, its suffixes, and the mark of the end."""
    text = openmetrics.text(metrics.families(reply(row(0, started=1001.25, restarts=2))))

    for lines in (
        '# TYPE pyworkers_up gauge\n# HELP pyworkers_up Whether the master answers.\npyworkers_up{name="shop"} 1\n',
        'pyworkers_info{name="shop",app="shop:app"} 1\n',
        "# TYPE pyworkers_start_time_seconds gauge\n# UNIT pyworkers_start_time_seconds seconds\n",
        'pyworkers_start_time_seconds{name="shop"} 1000.5\n',
        'pyworkers_worker_start_time_seconds{name="shop",handler="crawl",pin="0"} 1001.25\n',
        'pyworkers_worker_restarts_total{name="shop",handler="crawl",pin="0"} 2\n',
    ):
        assert lines in text
    assert text.endswith("\n# EOF\n")
    assert "# TYPE pyworkers_worker_restarts counter\n" in text


def test_states_are_counted_also_where_nobody_is_in_one() -> None:
    """By handler: a series that comes and goes cannot be summed up over time."""
    assert set(metrics.STATES) == set(NAMES.values())
    found = of(row(0), row(1), row(2, "backoff"), spares=({"handler": "crawl", "spare": 0, "state": "running"},))

    counts = {state: found["pyworkers_workers", "handler=crawl", f"state={state}"] for state in metrics.STATES}
    assert {state: count for state, count in counts.items() if count} == {"running": 2, "backoff": 1}
    assert found["pyworkers_spares", "handler=crawl", "state=running"] == 1


@pytest.mark.parametrize(
    ("worker", "up"),
    [
        (row(0), 1),
        (row(0, suspended=True), 0),
        *((row(0, state), 0) for state in metrics.STATES if state != "running"),
    ],
)
def test_pin_is_up_where_somebody_serves_it(worker: dict[str, Any], up: int) -> None:
    """A worker that runs, and is not suspended."""
    assert of(worker)["pyworkers_worker_up", "handler=crawl", "pin=0"] == up


def test_what_is_not_known_has_no_sample() -> None:
    """No zero stands for a missing number: zero items done is another thing than no App.track."""
    known = of(
        row(0, done=0, total=9, checkpoint=0.25, last_exit={"cause": "signal=SIGKILL", "at": 1020.5, "after": 1.0})
    )
    unknown = of(row(0))

    pin = ("handler=crawl", "pin=0")
    told = {
        ("pyworkers_worker_items_done", *pin): 0,
        ("pyworkers_worker_items_expected", *pin): 9,
        ("pyworkers_worker_checkpoint_age_seconds", *pin): 0.25,
        ("pyworkers_worker_last_exit_time_seconds", *pin): 1020.5,
        ("pyworkers_worker_last_exit_info", "cause=signal=SIGKILL", *pin): 1,
    }
    assert {key: known[key] for key in told} == told
    assert not {key[0] for key in told} & {key[0] for key in unknown}


def test_instance_that_is_gone_is_down() -> None:
    """And nothing else is known of it."""
    assert samples(openmetrics.text(metrics.absent("shop"))) == {("pyworkers_up",): 0}


@given(name=st.text(min_size=1), cause=st.text(), restarts=st.integers(0, 2**53))
def test_labels_survive_whatever_they_hold(name: str, cause: str, restarts: int) -> None:
    """Quotes, backslashes and newlines come out of a strict parser as they went in."""
    last_exit = {"cause": cause, "at": 1.0, "after": 1.0}
    text = openmetrics.text(metrics.families(reply(row(0, restarts=restarts, last_exit=last_exit), name=name)))

    found = {sample.name: sample for family in parser.text_string_to_metric_families(text) for sample in family.samples}
    assert found["pyworkers_worker_last_exit_info"].labels["cause"] == cause
    assert found["pyworkers_worker_last_exit_info"].labels["name"] == name
    assert found["pyworkers_worker_restarts_total"].value == restarts


# A running instance

APP = """
    app = App("shop", lock_file=here / "lock")

    @app.worker(pins=range(3))
    def crawl(pin):
        for number in app.track(range(10)):
            while number == 3:
                app.sleep(3600)
"""


@pytest.fixture
def port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def fetched(port: int, accept: str = "*/*") -> str:
    """Return what is served at a port, or an empty string where nobody answers."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())
    return ""


def await_items(port: int) -> None:
    """Wait until all workers have done what they can."""

    def done() -> bool:
        found = samples(fetched(port), plain_parser)
        return [value for key, value in found.items() if key[0] == "pyworkers_worker_items_done"] == [3, 3, 3]

    until(done, "three items of each worker")


def started(bench: Bench, port: int) -> Instance:
    """Start the app with its metrics at a port."""
    instance = bench.start(APP, f"--metrics-address=127.0.0.1:{port}")
    await_items(port)
    return instance


def helper(instance: Instance, nth: int = 1) -> int:
    """Return the pid of the nth helper."""
    return int(instance.await_log(r"metrics helper started address=\S+ pid=(\d+)", nth)[nth - 1][1])


def test_status_prints_it_for_a_textfile_collector(bench: Bench) -> None:
    """With the code of any other status; of an instance that is gone, that it is."""
    instance = bench.start(APP)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "three workers")
    os.kill(instance.worker(1), signal.SIGKILL)
    instance.worker(1, 2)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "three workers")
    printed = bench.run("status", "shop:app", "--openmetrics")

    assert (printed.returncode, printed.stderr) == (0, "")
    found = samples(printed.stdout)
    assert found["pyworkers_worker_restarts_total", "handler=crawl", "pin=1"] == 1
    assert found["pyworkers_worker_last_exit_info", "cause=signal=SIGKILL", "handler=crawl", "pin=1"] == 1
    assert abs(found["pyworkers_worker_start_time_seconds", "handler=crawl", "pin=1"] - time.time()) < 20
    assert instance.stop() == 0
    gone = bench.run("status", "shop:app", "--openmetrics")
    assert (gone.returncode, samples(gone.stdout)) == (4, {("pyworkers_up",): 0})
    assert gone.stderr.count("\n") == 1


def test_start_time_of_a_worker_does_not_move(bench: Bench) -> None:
    """To the last digit: Prometheus counts its changes."""
    bench.start(APP)
    until(lambda: bench.run("status", "shop:app").returncode == 0, "three workers")

    seen = {
        tuple(worker["started"] for worker in json.loads(bench.run("status", "shop:app", "--json").stdout)["workers"])
        for _ in range(5)
    }

    assert len(seen) == 1


def test_helper_serves_what_status_prints(bench: Bench, port: int) -> None:
    """In the text that the scraper asks for, and nothing of it is in the master."""
    instance = started(bench, port)
    ages = "checkpoint_age"
    printed = samples(bench.run("status", "shop:app", "--openmetrics").stdout)
    served = samples(fetched(port, OPENMETRICS))
    plain = samples(fetched(port), plain_parser)

    assert served.keys() == printed.keys() == plain.keys()
    assert {key: value for key, value in served.items() if ages not in key[0]} == {
        key: value for key, value in printed.items() if ages not in key[0]
    }
    assert instance.stop() == 0
    assert not alive(helper(instance))


def test_helper_holds_nothing_of_the_instance(bench: Bench, port: int) -> None:
    """Not the lock, not the control socket, no pipe: but the port, which no worker has."""
    instance = started(bench, port)
    pid = helper(instance)

    def links(of_pid: int) -> set[str]:
        return set(open_files(of_pid).values())

    master = links(instance.pid)
    (listener,) = {link for link in links(pid) & master if link.startswith("socket:")}
    kept = {link for link in links(pid) & master if link not in {"/dev/null", listener}}
    assert kept == {str(instance.log_path)}
    assert all(listener not in links(instance.worker(pin)) for pin in range(3))


def test_helper_that_dies_is_replaced(bench: Bench, port: int) -> None:
    """The door stays open meanwhile: a scrape waits for the next one."""
    instance = started(bench, port)
    first = helper(instance)

    os.kill(first, signal.SIGKILL)

    instance.await_log(rf"WARNING metrics helper ended address=\S+ pid={first} signal=SIGKILL after=\S+; respawning")
    assert ("pyworkers_up",) in samples(fetched(port), plain_parser)
    assert helper(instance, 2) != first
    assert instance.stop() == 0


def test_helper_dies_with_the_master(bench: Bench, port: int) -> None:
    """Whatever kills that."""
    instance = started(bench, port)
    pid = helper(instance)

    instance.signal(signal.SIGKILL)
    instance.wait()

    until(lambda: not alive(pid), "the end of the helper")
    assert fetched(port) == ""


def test_stop_that_is_sent_to_the_whole_group_is_the_masters_alone(bench: Bench, port: int) -> None:
    """No helper leaves before its master, at whatever moment, and none is started in the middle of a stop."""
    pytest.importorskip("watchfiles", reason="needs watchfiles")
    stubborn = """
        app = App("shop", stop_timeout=60)

        @app.worker(pins=0)
        def crawl():
            with app.critical():
                (here / "begun").touch()
                while not (here / "go").exists():
                    time.sleep(0.01)
    """

    def send_all(*pids: int) -> None:
        for pid in pids:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                os.kill(pid, signum)

    instance = bench.start(stubborn, f"--metrics-address=127.0.0.1:{port}", "--reload")
    pids = [int(line[1]) for line in instance.await_log(r"(?:metrics helper|file watcher) started \S+ pid=(\d+)", 2)]
    send_all(*pids)
    until(lambda: fetched(port), "metrics")
    until((bench.directory / "begun").exists, "the handler")
    instance.signal(signal.SIGTERM)
    send_all(*pids)
    instance.await_log("stopping")
    assert bench.run("ping", "shop:app").returncode == 0
    assert all(map(alive, pids))
    (bench.directory / "go").touch()

    assert instance.wait() == 0
    assert len(instance.matches("started address|started directory")) == 2
    assert not instance.matches("helper ended|watcher ended")
    assert not any(map(alive, pids))


def test_helper_that_hangs_delays_nobody(bench: Bench, port: int) -> None:
    """Workers are replaced, the control socket answers, and a stop is over at once, while it is suspended."""
    instance = started(bench, port)
    pid = helper(instance)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "T", "the helper to be suspended")

    for attempt in range(1, 6):
        os.kill(instance.worker(0, attempt), signal.SIGKILL)
    instance.worker(0, 6)
    assert bench.run("ping", "shop:app").returncode == 0
    assert instance.stop() == 0
    assert not alive(pid)


def test_port_that_is_taken_is_one_line(bench: Bench) -> None:
    """The workers run, and when the port is free the metrics come."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        instance = bench.start(APP, f"--metrics-address=127.0.0.1:{port}")
        instance.await_log("worker started", 3)
        instance.await_log(r"metrics helper cannot start address=127\.0\.0\.1:\d+: Address already in use")
    await_items(port)

    assert len(instance.matches("Address already in use")) == 1
    assert instance.stop() == 0


def test_master_is_not_loaded_with_what_the_helper_needs(bench: Bench, port: int) -> None:
    """No thread, no socket module, no package: a worker sees what its master had."""
    bench.app(
        """
        before = set(sys.modules)
        app = App("shop")

        @app.worker(pins=0)
        def work():
            (here / "loaded").write_text(" ".join(sorted(set(sys.modules) - before)) + "\\n")
            app.sleep(3600)
        """
    )
    bench.start(None, f"--metrics-address=127.0.0.1:{port}")

    loaded = bench.await_text("loaded", "\n").split()
    assert "pyworkers._metering" in loaded
    assert not {"socket", "threading", "http", "prometheus_client", "pyworkers._metrics", "json"} & set(loaded)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("9100", "--metrics-address must be HOST:PORT, such as 127.0.0.1:9100, got '9100'"),
        ("host:0", "must be HOST:PORT"),
        ("host:65536", "must be HOST:PORT"),
        ("a host:9100", "must be HOST:PORT"),
    ],
)
def test_address_that_is_none_is_refused(address: str, words: str, bench: Bench) -> None:
    """In one line, before anything starts."""
    bench.app(APP)
    done = bench.run("shop:app", f"--metrics-address={address}")

    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_package_that_is_missing_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, before anything starts."""
    (bench.directory / "elsewhere.py").write_text(
        "import sys\nfrom importlib.machinery import PathFinder\nfind = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'prometheus_client' else find(name, *rest)\n"
        "from pyworkers.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    bench.app(APP)
    command = [sys.executable, "elsewhere.py", "shop:app", "--metrics-address=:9100"]  # type: ignore[attr-defined]
    done = subprocess.run(command, cwd=bench.directory, capture_output=True, text=True, timeout=20, check=False)

    assert done.returncode == 2
    assert done.stderr.endswith(
        "--metrics-address needs a package that is not installed: pip install 'pyworkers[metrics]'\n"
    )


def test_host_that_does_not_exist_is_one_line(bench: Bench) -> None:
    """The instance runs without."""
    instance = bench.start(APP, "--metrics-address=no-such-host.invalid:9100")
    instance.await_log("worker started", 3)

    assert len(instance.await_log(r"WARNING no metrics address=no-such-host\.invalid:9100: ")) == 1
    assert instance.stop() == 0


def test_program_that_starts_itself_is_served_too(bench: Bench, port: int) -> None:
    """By the variable; and when run() returns, no child is left."""
    bench.app(
        """
        app = App("shop")

        @app.worker(pins=0)
        def work():
            app.sleep(3600)

        if __name__ == "__main__":
            code = app.run()
            print("children", Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(), flush=True)
            sys.exit(code)
        """
    )
    program = subprocess.Popen(
        [sys.executable, "shop.py"],
        cwd=bench.directory,
        env={**os.environ, "PYWORKERS_METRICS_ADDRESS": f"127.0.0.1:{port}", "XDG_RUNTIME_DIR": str(bench.directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(lambda: fetched(port), "metrics")
    assert len(children(program.pid)) == 2

    program.terminate()

    assert program.communicate(timeout=20)[0] == "children []\n"
    assert program.returncode == 0


# The real Prometheus


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_has_nothing_to_say(bench: Bench, port: int) -> None:
    """Neither of the text itself nor of the names in it."""
    started(bench, port)
    text = fetched(port)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=20, check=False
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    bad = text.replace("pyworkers_worker_restarts_total", "pyworkers_worker_restarts")
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=bad, capture_output=True, text=True, timeout=20, check=False
    )
    assert checked.returncode != 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_what_status_prints_is_read_by_what_knows_the_older_text_alone(bench: Bench) -> None:
    """Such as node_exporter's textfile collector: all of it, but for the help of a counter, whose name differs there."""
    instance = bench.start(APP)
    instance.await_log("worker started", 3)
    os.kill(instance.worker(1), signal.SIGKILL)
    instance.worker(1, 2)
    text = bench.run("status", "shop:app", "--openmetrics").stdout
    assert "pyworkers_worker_last_exit_info{" in text
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=20, check=False
    )

    # 1 is a text that cannot be read, 3 a remark.
    remark = "pyworkers_worker_restarts_total no help text\n"
    assert (checked.returncode, checked.stdout, checked.stderr) == (3, "", remark)


@contextlib.contextmanager
def printed(bench: Bench) -> Iterator[int]:
    """Serve what `status --openmetrics` prints, and return the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = bench.run("status", "shop:app", "--openmetrics").stdout.encode()
            self.send_response(200)
            self.send_header("Content-Type", OPENMETRICS)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus (Debian: prometheus)")
def test_real_prometheus_reads_both(bench: Bench, port: int) -> None:
    """The helper's answer and the text that `status` prints; it sees a worker die and come back, and the end of all."""
    instance = started(bench, port)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        own = int(probe.getsockname()[1])
    with printed(bench) as text_port:
        jobs = "".join(
            f"- job_name: {name}\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
            for name, target in (("helper", port), ("text", text_port))
        )
        config = bench.directory / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: 4s, scrape_timeout: 4s}}\nscrape_configs:\n{jobs}")
        with (bench.directory / "prometheus.log").open("wb") as log:
            server = subprocess.Popen(
                [
                    "prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{own}",
                    f"--storage.tsdb.path={bench.directory}/data",
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip

        def asked(query: str) -> dict[tuple[str, str], float]:
            where = f"http://127.0.0.1:{own}/api/v1/query?query={urllib.parse.quote(query)}"
            with contextlib.suppress(OSError), urllib.request.urlopen(where, timeout=20) as answer:
                results = json.load(answer)["data"]["result"]
                return {
                    (each["metric"]["job"], each["metric"].get("pin", "")): float(each["value"][1]) for each in results
                }
            return {}

        both = ("helper", "text")
        try:
            up = {(job, str(pin)): 1.0 for job in both for pin in range(3)}
            until(lambda: asked("pyworkers_worker_up") == up, "all PINs up, told by both")
            assert asked("up") == {(job, ""): 1.0 for job in both}
            os.kill(instance.worker(2), signal.SIGKILL)
            restarts = "pyworkers_worker_restarts_total{pin='2'} * on (job, pin) group_right () (pyworkers_worker_last_exit_info{cause='signal=SIGKILL'})"
            until(lambda: asked(restarts) == {(job, "2"): 1.0 for job in both}, "the restart, told by both")
            instance.stop()
            until(lambda: asked("pyworkers_up") == {("text", ""): 0.0}, "the end, told by status")
            assert asked("up") == {("helper", ""): 0.0, ("text", ""): 1.0}
        finally:
            server.terminate()
            server.wait(20)
