"""One PIN's handler in this very process, for a debugger: no fork, no supervision, and Python's own signals."""

from __future__ import annotations

from pyworkers._plan import Plan
from pyworkers._worker import boot
from pyworkers.app import App, declaration_of, runtime_of


def run_inline(app: App, decided: Plan) -> int:
    """Call the one PIN's handler, its hooks around it, and return its exit code."""
    ((pin, place),) = decided.assignment.items()
    declaration = declaration_of(app)
    spec = declaration.handlers[place]
    with runtime_of(app).place.inline(pin):
        for function in declaration.on_start:
            function()
        try:
            for function in declaration.on_worker_warm:
                function()
            for pin_function in declaration.on_worker_start:
                pin_function(pin)
            return boot.run_inline(spec.call, pin, is_async=spec.is_async)
        finally:
            for pin_function in declaration.on_worker_exit:
                pin_function(pin)
            for function in declaration.on_stop:
                function()
