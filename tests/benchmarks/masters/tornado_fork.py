"""tornado's fork_processes. It handles no TERM: its users signal the whole process group."""

from __future__ import annotations

import sys

from tornado.process import fork_processes
from work import work

fork_processes(int(sys.argv[1]), max_restarts=sys.maxsize)
work()
