"""Metrics of one picture as columns of the table: brightness, sharpness, ..., those of models, and the user's own.

`formulas` holds what is computed from pixels alone, `learned` what a local model says, `naming` how a name becomes
a function, and `measuring` how files are measured once. How two pictures compare is `images`' business; where numbers
are kept is the store's.
"""

from __future__ import annotations

from sweeper.images.metrics.measure import MetricInput as MetricInput
from sweeper.images.metrics.measure import measure as measure
from sweeper.images.metrics.measure import measure_missing as measure_missing
from sweeper.images.metrics.measure import read_picture as read_picture
from sweeper.images.metrics.registry import METRIC_NAMES as METRIC_NAMES
from sweeper.images.metrics.registry import Metric as Metric
from sweeper.images.metrics.registry import find_unknown_metrics as find_unknown_metrics
from sweeper.images.metrics.registry import load_metrics as load_metrics
