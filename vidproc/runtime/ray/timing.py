"""How long the driver waits for Ray, for workers and for places. Seconds, by the driver's own clock."""

from __future__ import annotations

LOOK_EVERY_S = 5.0
"""How often the pools are fitted to the cluster."""
WAITING_AFTER_S = 10.0
"""A pool without an actor for this long is worth an event; and again after each such time."""
GRACE_S = 15.0
"""How much later than a worker's own time limit the driver ends it, and how long a killed process may take to die."""
IDLE_S = 60.0
"""An actor above the minimum with nothing to do for this long is let go."""
