"""The live view: serves the report's page while a run goes on, in the run's own process or in another.

`follower` reads the store repeatedly and knows what changed, and `server` answers requests and runs all of it in
threads. `sweeper.serving` controls who may see the page.
"""

from sweeper.reporting.live.server import LiveView

__all__ = ["LiveView"]
