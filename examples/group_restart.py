"""9. A group: workers that need each other are restarted all together when one of them fails.

Two senders hold a socket that is connected to the one of `collect`. When that worker dies, their connections are worth
nothing, so all three are in one group with the strategy "all": the others are asked to leave, as in a stop, and when
the last one is gone, all start again. Other PINs would not notice.

    python -m pyworkers examples.group_restart:app

PIN 0 dies in its first life. You will see these lines among others, and the end of all when ten messages have come:

    worker ended collect pin=0 pid=... signal=SIGKILL after=0.1s; respawning with its group
    group restarting feed after pin=0 workers=2; all start again
    worker ended send pin=1 pid=... exit=143 after=0.1s done=0/5; respawning with its group
    worker ended send pin=2 pid=... exit=143 after=0.1s done=0/5; respawning with its group
    collect pin=0: all 10 messages have come
    all workers finished; master exits
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path

from pyworkers import App

app = App("group_restart", group="feed", strategy="all")
directory = tempfile.TemporaryDirectory()
address = Path(directory.name, "inbox")


@app.worker(pins=0)
def collect() -> None:
    """Take ten messages; the first worker dies after two."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(address))
        for count in range(1, 11):
            app.wait([inbox])
            inbox.recv(4096)
            if count == 2 and app.previous is None:
                os.kill(os.getpid(), signal.SIGKILL)
    app.log.info("all 10 messages have come")


@app.worker(pins=[1, 2])
def send(pin: int) -> None:
    """Connect as soon as there is somebody to connect to, and send five messages."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outbox:
        while outbox.connect_ex(str(address)):
            app.sleep(0.05)
        for number in app.track(range(5)):
            outbox.send(f"message {number} of pin {pin}".encode())
            app.sleep(0.2)
