"""The end of an instance: which PINs have failed, whose work a stop has cut short, and the exit code that says so."""

from __future__ import annotations

from collections.abc import Mapping

from pyworkers._core import messages as m
from pyworkers._core.messages import Effect
from pyworkers._core.types import Failed, Finished, Pin, SlotState, is_spare


def ending(
    states: Mapping[Pin, SlotState], *, stopped: bool, torn: bool, asked_code: int | None, cut_code: int
) -> list[Effect]:
    """Return what is left to do when no slot is open any more.

    Args:
        states: Of all slots.
        stopped: Whether the instance was asked to stop.
        torn: Whether a worker did not leave that stop by itself.
        asked_code: The exit code that the stop has asked for, which has the last word.
        cut_code: The one where the stop came before all PINs had ended normally.
    """
    failed = tuple(pin for pin, state in states.items() if isinstance(state, Failed))
    if asked_code is not None:
        code = asked_code
    elif torn or failed:
        code = 1
    else:
        is_cut = any(state == Finished(cut=True) for pin, state in states.items() if not is_spare(pin))
        code = cut_code if is_cut else 0
    return [m.AllEnded(stopped, code, failed), m.Finish(code, stopped)]
