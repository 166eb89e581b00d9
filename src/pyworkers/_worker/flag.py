"""The one bit that a checkpoint looks at: something is pending."""

from __future__ import annotations


class Flag:
    """What `App` is, so that the bit is one attribute away from `App.checkpoint`, which is called in every loop.

    A second attribute on the way would make a checkpoint with nothing pending cost 1.45 of an empty method instead of
    1.2 (measured on Python 3.11).
    """

    def __init__(self) -> None:
        # Of the instance, not the class: the interpreter specializes that look-up (PEP 659).
        self._pending = False
