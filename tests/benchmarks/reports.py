"""What a worker of a benchmark tells the arena, and what stands in it in place of a PIN."""

from __future__ import annotations

import struct

REPORT = struct.Struct("=qqq")
"""The pid, the instant on CLOCK_MONOTONIC in nanoseconds, and the PIN or one of the constants below."""
NOWHERE = -1
"""The worker knows of no PIN."""
WARM = -2
"""This process is ready to begin, and has not begun yet."""
