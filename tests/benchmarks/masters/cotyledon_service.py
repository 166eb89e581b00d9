"""cotyledon: one service of many workers. A method `run` is called in a thread of its own."""

from __future__ import annotations

import sys

from cotyledon import Service, ServiceManager
from work import work


class Working(Service):
    def run(self) -> None:
        work()


def hurry(*_: object) -> None:
    # Of more forks than it has workers in as many seconds, each waits for 5 s; this lets it forget its forks so far.
    manager.reconfigure(service, count)


count = int(sys.argv[1])
manager = ServiceManager(wait_interval=0)
manager.register_hooks(on_dead_worker=hurry)
service = manager.add(Working, workers=count)
manager.run()
