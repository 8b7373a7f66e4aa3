"""The report's page, live: served while a run goes on, in the run's own process or in another.

`following` reads the store again and again and knows what changed, `guard` lets nobody in who has no business here,
`app` answers requests, `server` runs it all in threads. What the page looks like is `sweeper.reporting`'s affair.
"""

from sweeper.reporting.live.server import LiveView

__all__ = ["LiveView"]
