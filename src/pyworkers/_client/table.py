"""How a status looks to a person: one line for each PIN, aligned; pure functions of the reply."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._client.wire import Reply

HEADS = ("PIN", "HANDLER", "STATE", "PID", "UPTIME", "RESTARTS", "LAST EXIT", "PROGRESS", "UNIT")


def is_up(row: Reply) -> bool:
    """Whether the PIN of this row is served."""
    return bool(row["state"] == "running" and not row["suspended"])


def is_wanted(row: Reply) -> bool:
    """Whether the PIN of this row should be up: one that has ended normally is done."""
    return bool(row["state"] != "finished")


def summary(status: Reply) -> str:
    """Return the first line: the instance."""
    workers = status["workers"]
    wanted = sum(map(is_wanted, workers))
    up = sum(map(is_up, workers))
    finished = len(workers) - wanted
    done = f", {finished} finished" if finished else ""
    app = f" ({status['app']})" if status["app"] else ""
    since = duration(status["uptime"])
    return f"{status['name']}{app} {status['state']}, master pid {status['pid']}, up {since}: {up} of {wanted} up{done}"


def reloaded(status: Reply) -> list[str]:
    """Return the line that a reload is worth which has not ended well, or not at all."""
    code: Reply = status["code"] or {"reload": "none"}
    match code["reload"]:
        case "halted":
            return [f"the last reload halted at PIN {code['pin']}: {code['left']} others run the code of before it"]
        case "rolling":
            return [f"a reload is under way at PIN {code['pin']}: {code['done']} PINs have been replaced"]
        case "failed":
            return ["the last reload failed: workers run the code of before it, and none that ends is replaced"]
        case _:
            return []


def progress(done: int | None, total: int | None) -> str:
    """Return how far `track` is."""
    if done is None:
        return ""
    if not total:
        return str(done)
    return f"{done}/{total} {min(100, 100 * done // total)}%"


def table(status: Reply, bar: Callable[[int | None, int | None], str] = progress) -> list[str]:
    """Return the lines of the table, its head first; columns in which nothing stands are left out."""
    now = status["started"] + status["uptime"]
    rows = [_cells(row, now, bar) for row in status["workers"]]
    rows += [_spare_cells(row) for row in status["spares"]]
    return aligned([HEADS, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines in which columns stand beneath each other; the first row is the head."""
    used = [column for column in range(len(rows[0])) if any(row[column] for row in rows[1:])] or [0]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    return ["  ".join(f"{row[column]:<{widths[column]}}" for column in used).rstrip() for row in rows]


def duration(seconds: float) -> str:
    """Return `4.2s`, `3m12s`, `5h03m` or `12d04h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    for unit, per, smaller, per_smaller in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= per:
            return f"{whole // per}{unit}{whole % per // per_smaller:02d}{smaller}"
    return f"{whole}s"


def plain(text: str) -> str:
    """Return text of the app's own without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


def state(row: Reply) -> str:
    """Return the state, and what goes with it."""
    if row["delay"] is not None:
        return f"backoff {row['delay']:.1f}s"
    if row["state"] == "backoff":
        return "backoff (group)"
    return "suspended" if row["suspended"] else str(row["state"])


def last_exit(row: Reply, now: float) -> str:
    """Return the cause of the last end, and how long ago it was."""
    end = row["last_exit"]
    return "" if end is None else f"{end['cause']} {duration(now - end['at'])} ago"


def _cells(row: Reply, now: float, bar: Callable[[int | None, int | None], str]) -> tuple[str, ...]:
    return (
        str(row["pin"]),
        plain(row["handler"]),
        state(row),
        _or_empty(row["pid"]),
        "" if row["uptime"] is None else duration(row["uptime"]),
        str(row["restarts"]),
        last_exit(row, now),
        bar(row["done"], row["total"]),
        plain(row["unit"] or ""),
    )


def _spare_cells(row: Reply) -> tuple[str, ...]:
    uptime = "" if row["uptime"] is None else duration(row["uptime"])
    return ("spare", plain(row["handler"]), row["state"], _or_empty(row["pid"]), uptime, "", "", "", "")


def _or_empty(value: object) -> str:
    return "" if value is None else str(value)


def all_up(workers: Iterable[Reply]) -> bool:
    """Whether all PINs that are wanted are up."""
    return all(is_up(row) for row in workers if is_wanted(row))
