"""The testing kit: a handler stopped at its Nth checkpoint, a real instance to shoot at, policies in simulated time.

Loaded only by whoever imports it. A fixture for pytest, `pyworkers_instance`, comes with the package.
"""

from pyworkers.testing._inline import HandlerResult, run_handler
from pyworkers.testing._instance import Instance
from pyworkers.testing._simulation import simulate
from pyworkers.testing._status import WorkerStatus
from pyworkers.testing._timeline import Life, SimulatedAttempt, Timeline

__all__ = [
    "HandlerResult",
    "Instance",
    "Life",
    "SimulatedAttempt",
    "Timeline",
    "WorkerStatus",
    "run_handler",
    "simulate",
]
