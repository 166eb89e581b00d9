"""How the history of a PIN looks to a person: what it is now, how it got there, and by which rules; pure functions."""

from __future__ import annotations

import time

from pyworkers._client.table import duration, plain, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyworkers._client.wire import Reply

LOOPS_FROM = 3
"""So many short lives in a row are called a crash loop."""


def story(reply: Reply) -> list[str]:
    """Return the lines."""
    row = reply["worker"]
    lines = [
        f"{reply['name']}: PIN {row['pin']} of handler {plain(row['handler'])} is {_now(row)}",
        f"it is {reply['policy']}",
    ]
    if loop := _loop(reply["events"]):
        lines.append(loop)
    lines.append("")
    for event in reply["events"]:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["at"])) + f".{int(event['at'] * 1000) % 1000:03d}"
        lines.append(f"{at}  {plain(event['what'])}")
        if event["then"]:
            lines.append(f"{'':{len(at)}}    {plain(event['then'])}")
    if not reply["events"]:
        lines.append("nothing has happened yet")
    return lines


def _now(row: Reply) -> str:
    if row["delay"] is not None:
        return f"in backoff: the next process is due in {duration(row['delay'])}"
    process = "" if row["pid"] is None else f", pid {row['pid']} for {duration(row['uptime'])}"
    return f"{state(row)}{process}; restarts so far: {row['restarts']}"


def _loop(events: list[Reply]) -> str:
    """Name a crash loop: the last ends were all alike, and quick."""
    ends = [event for event in events if event["event"] == "ended"]
    alike: list[Reply] = []
    for end in reversed(ends):
        if end["cause"] != ends[-1]["cause"] or end["after"] >= 1:
            break
        alike.append(end)
    if len(alike) < LOOPS_FROM:
        return ""
    longest = max(end["after"] for end in alike)
    return (
        f"a crash loop: its last {len(alike)} processes have each ended by {ends[-1]['cause']} within {longest:.2g} s"
    )
