"""What type checkers accept and refuse in an app; nothing runs this file.

Every mistake below is marked. mypy (warn_unused_ignores) and pyright both report a mark that has become unnecessary,
so a mistake that either of them no longer refuses fails the check.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from pyworkers import App, ExitCode, FailureRecord, Previous, Stop

app = App(
    "shop",
    workers=8,
    normal_exit_codes=(0, 3),
    permanent_failure_codes=range(125, 128),
    lock_file=Path("shop.lock"),
    strict=True,
    debug=True,
    restart="always",
    backoff=(0.1, 30.0),
    max_restarts=5,
    restart_period=60,
    stop_timeout=8,
    cooperative=None,
    hang_timeout=30,
    max_runtime=3600.0,
    max_rss="300M",
    kill_group=False,
    group="pair",
    strategy="all",
    spares=1,
)
App()
App(normal_exit_codes=0, permanent_failure_codes=125, lock_file="shop.lock", cooperative=True, max_rss=300_000_000)
App(max_restarts=None, hang_timeout=None, max_runtime=None, max_rss=None, group=None)


# Handlers keep their signature


@app.worker(pins=range(3))
def with_pin(pin: int) -> None: ...


@app.worker()
def without_pin() -> int:
    return 0


@app.worker(pins=3, stop_timeout=2.5, backoff=(1, 2), cooperative=False)
def maybe_code(pin: int) -> int | None:
    return pin or None


@app.worker(pins=[4, 5], restart="never", max_restarts=0, hang_timeout=2.5, max_rss="1G", group="g", strategy="one")
def exit_code(pin: int) -> ExitCode:
    return ExitCode.OK


@app.worker(pins={6})
async def async_with_pin(pin: int) -> None: ...


@app.worker(pins=iter([7]))
async def async_without_pin() -> int:
    return 3


@app.worker(pins=8, spares=2)
def with_default(pin: int, limit: int = 10) -> None: ...


assert_type(with_pin(1), None)
assert_type(without_pin(), int)
assert_type(maybe_code(pin=1), int | None)
assert_type(exit_code(1), ExitCode)
with_default(1, limit=3)
kept: Callable[[int], None] = with_pin
kept_plain: Callable[[], int] = without_pin
kept_async: Callable[[int], Coroutine[Any, Any, None]] = async_with_pin
kept_async_plain: Callable[[], Coroutine[Any, Any, int]] = async_without_pin


async def awaits() -> None:
    assert_type(await async_without_pin(), int)


with_pin("1")  # type: ignore[arg-type]
without_pin(1)  # type: ignore[call-arg]


# Hooks keep theirs


@app.on_start
def prepare() -> None: ...


@app.on_stop
def clean_up() -> bool:
    return True


@app.on_worker_warm
def load() -> None: ...


@app.on_worker_start
def connect(pin: int) -> None: ...


@app.on_worker_start
def connect_without_pin() -> None: ...


@app.on_worker_exit
def disconnect(pin: int) -> str:
    return str(pin)


@app.on_failure
def mail(record: FailureRecord) -> None:
    assert_type(record.pin, int)
    assert_type(record.cause, str)
    assert_type(record.lifetime, float)


@app.on_signal(signal.SIGUSR1)
def rotate() -> None: ...


assert_type(clean_up(), bool)
kept_warm: Callable[[], None] = load
assert_type(disconnect(1), str)
kept_hook: Callable[[int], None] = connect
kept_failure: Callable[[FailureRecord], None] = mail
kept_signal: Callable[[], None] = rotate


# What a handler can ask for


def uses() -> None:
    assert_type(app.pin, int | None)
    assert_type(app.generation, int)
    assert_type(app.previous, Previous | None)
    if app.previous is not None:
        assert_type(app.previous.cause, str)
        assert_type(app.previous.attempt, int)
        assert_type(app.previous.unit, str)
    assert_type(app.checkpoint(), None)
    assert_type(app.sleep(1), None)
    for item in app.track(["a", "b"], total=2):
        assert_type(item, str)
    with app.critical(), app.interruptible():
        app.unit("one")
    assert_type(app.wait([0, 1], timeout=1.5), list[int])
    app.log.info("%s", "a standard logger")
    app.stop_all()
    app.stop_all(3)
    assert_type(app.run(), int)
    raise Stop(143)


def context_swallows_nothing() -> int:
    with app.critical():
        return 1


# Mistakes


@app.worker(pins=0)  # type: ignore[type-var]
def two(first: int, second: int) -> None: ...


@app.worker(pins=0)  # type: ignore[type-var]
def text_pin(pin: str) -> None: ...


@app.worker(pins=0)  # type: ignore[type-var]
def keyword_only(*, pin: int) -> None: ...


@app.worker(pins=0)  # type: ignore[type-var]
def returns_text(pin: int) -> str:
    return str(pin)


@app.worker(pins=0)  # type: ignore[type-var]
async def returns_text_later(pin: int) -> str:
    return str(pin)


@app.worker(pins=0)  # type: ignore[type-var]
def generator(pin: int) -> Iterator[int]:
    yield pin


@app.worker(pins=0)  # type: ignore[type-var]
async def async_generator(pin: int) -> AsyncIterator[int]:
    yield pin


@app.worker  # type: ignore[arg-type]
def bare(pin: int) -> None: ...


@app.on_signal  # type: ignore[arg-type]
def bare_signal() -> None: ...


@app.on_start  # type: ignore[type-var]
def wants_pin(pin: int) -> None: ...


@app.on_worker_warm  # type: ignore[type-var]
def wants_pin_too_early(pin: int) -> None: ...


@app.on_failure  # type: ignore[type-var]
def wants_text(record: str) -> None: ...


@app.on_signal(signal.SIGUSR1)  # type: ignore[type-var]
def wants_frame(signum: int, frame: object) -> None: ...


app.worker(pins=0, name="crawl")  # type: ignore[call-arg]
app.worker(pins="0")  # type: ignore[arg-type]
app.worker(pins=1.5)  # type: ignore[arg-type]
app.worker(pins=["0"])  # type: ignore[list-item]
app.worker(stop_timeot=1)  # type: ignore[call-arg]
app.worker(stop_timeout="8")  # type: ignore[arg-type]
app.worker(backoff=1)  # type: ignore[arg-type]
app.worker(backoff=(1, 2, 3))  # type: ignore[arg-type]
app.worker(cooperative="yes")  # type: ignore[arg-type]
app.worker(restart="sometimes")  # type: ignore[arg-type]
app.worker(restart=True)  # type: ignore[arg-type]
app.worker(max_restarts="5")  # type: ignore[arg-type]
app.worker(restart_period=None)  # type: ignore[arg-type]
app.worker(hang_timeout="30")  # type: ignore[arg-type]
app.worker(max_runtime="1h")  # type: ignore[arg-type]
app.worker(max_rss=1.5)  # type: ignore[arg-type]
app.worker(kill_group=None)  # type: ignore[arg-type]
app.worker(group=1)  # type: ignore[arg-type]
app.worker(strategy="some")  # type: ignore[arg-type]
app.worker(spares=None)  # type: ignore[arg-type]
app.worker(workers=3)  # type: ignore[call-arg]
app.worker(strict=True)  # type: ignore[call-arg]
app.worker(permanent_failure_codes=125)  # type: ignore[call-arg]
app.worker(range(3))  # type: ignore[arg-type]
App(stop_timeot=1)  # type: ignore[call-arg]
App(stop_timeout="8")  # type: ignore[arg-type]
App("shop", 3)  # type: ignore[call-arg]
App(workers="3")  # type: ignore[arg-type]
App(normal_exit_codes="0")  # type: ignore[arg-type]
App(permanent_failure_codes="125")  # type: ignore[arg-type]
App(strict="yes")  # type: ignore[arg-type]
App(debug="yes")  # type: ignore[arg-type]
App(restart="sometimes")  # type: ignore[arg-type]
App(max_rss=1.5)  # type: ignore[arg-type]
App(lock_file=5)  # type: ignore[arg-type]
app.stop_all("3")  # type: ignore[arg-type]
app.checkpoint(1)  # type: ignore[call-arg]
app.sleep("1")  # type: ignore[arg-type]
app.pin = 3  # type: ignore[misc]
app.generation = 3  # type: ignore[misc]
kept_unit: str = app.previous.unit  # type: ignore[union-attr]
Previous("hang", 1, "page 3").unit = "page 4"  # type: ignore[misc]
