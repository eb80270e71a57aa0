"""The record of guided search; :mod:`libranas.search.guided` has the search itself."""

from libranas.search.base import Strategy

#: Trainings before the surrogate is fitted for the first time.
FIRST = 10


def sizes(labels: int, per_round: int) -> list[int]:
    """Return how many networks each round trains."""
    first = min(FIRST, labels)
    return [first, *(min(per_round, labels - done) for done in range(first, labels, per_round))]


GUIDED = Strategy(
    "guided",
    "Guided search",
    settings=("objectives",),
    trains=True,
    note="Its fitness is the accuracy that the surrogate expects of a trained network, by all trainings.",
)
