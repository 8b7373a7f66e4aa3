"""Which targets a run has: those that its caller wishes for, else its experiment's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweeper.loading import check_targets

if TYPE_CHECKING:
    from sweeper.comfy.target import Target
    from sweeper.experiment import Experiment
    from sweeper.reading.targets import Named, Spec
    from sweeper.runner import Session


def targets_of(
    session: type[Session],
    experiment: Experiment,
    wished: Spec | Sequence[Spec] | None,
    *,
    named: Named,
    environ: Mapping[str, str],
) -> tuple[Target, ...]:
    """The targets as that kind of session has them; `named` are the user's, which yield to the experiment's.

    Raises ExperimentError for the experiment's own, UsageError for the others and for keys.
    """
    if wished is None:
        check_targets(experiment, named)
        wished = list(experiment.targets)
    return session.resolve(wished, named={**named, **experiment.named_targets}, environ=environ)
