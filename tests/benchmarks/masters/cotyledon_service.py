"""cotyledon: one service of many workers. A method `run` is called in a thread of its own."""

from __future__ import annotations

import sys

from cotyledon import Service, ServiceManager
from work import work


class Working(Service):
    def run(self) -> None:
        work()


manager = ServiceManager()
manager.add(Working, workers=int(sys.argv[1]))
manager.run()
