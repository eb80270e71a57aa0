"""Choose proxies and fit the combiner on some labels, judge both on the others."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from libranas.core.errors import LibranasError
from libranas.core.random import stream_seed
from libranas.core.stats import spearman, spearman_interval
from libranas.predictors.base import Calibration, Predictor, Sample, check_features, check_table
from libranas.predictors.evaluation import evaluate, parted, proxy_table
from libranas.predictors.label_free import consensus_of
from libranas.predictors.libra import choose, log_rank
from libranas.predictors.registry import COMBINERS


@dataclass(frozen=True)
class Verdict:
    """LIBRA's choice and how it fares.

    Attributes
    ----------
    choice : JSON-ready record of :class:`libranas.predictors.libra.Choice` with ``proxies``, ``calibration`` (ids that
        chose), ``held_out`` (Spearman of the chosen combination on the other architectures, with interval and n) and
        ``combiner`` (what ranks the candidates of the search: ``name``, ``proxies``, ``held_out``) and ``consensus``
        (what ranks without labels: ``proxies``, ``why``)
    methods : see :class:`libranas.predictors.evaluation.Evaluation` (``summary``)
    proxies : see :func:`libranas.predictors.evaluation.proxy_table`; all labelled architectures
    predictor : the fitted combiner, as it was judged
    """

    choice: dict
    methods: pd.DataFrame
    proxies: pd.DataFrame
    predictor: Predictor


def choose_and_judge(
    score_AP: pd.DataFrame,
    accuracy_A: pd.Series,
    params_A: pd.Series,
    settings: dict,
    seed: int,
    feature_AF: pd.DataFrame | None = None,
    network_A: pd.Series | None = None,
) -> Verdict:
    """Choose on some labelled architectures, judge on the others, next to every other method.

    Parameters
    ----------
    score_AP, params_A : the sample
    settings : config section ``libra``; `calibration` may be a list of numbers: every method is judged with each of
        them, and LIBRA's choice is made with the last one. ``methods``, if there, names the methods to judge
    feature_AF : features of the sample, for learners
    network_A : as for :func:`libranas.predictors.evaluation.evaluate`; of the sample

    LibranasError if accuracies name unknown architectures, or too few have one.
    """
    if len(unknown := accuracy_A.index.difference(score_AP.index)):
        raise LibranasError(
            f"{len(unknown)} architectures with an accuracy have no scores, e.g. {unknown[0]}",
            "score the same sample that the benchmark was made for (delete the benchmark's files to redo it)",
        )
    features = check_features(feature_AF, score_AP.index)
    reference = Sample(score_AP.sort_index(axis=1), params_A.loc[score_AP.index], features)
    score_AP, accuracy_A, params_A = check_table(score_AP.loc[accuracy_A.index], accuracy_A, params_A[accuracy_A.index])
    labelled = score_AP, accuracy_A, params_A
    # Judged first: it checks that both parts are large enough.
    evaluation = evaluate(
        *labelled,
        settings["calibration"],
        settings["splits"],
        seed,
        settings.get("methods"),
        feature_AF=None if features is None else features.loc[score_AP.index],
        reference=reference,
        network_A=network_A,
    )
    count = settings["calibration"] if isinstance(settings["calibration"], int) else settings["calibration"][-1]
    rng = np.random.default_rng(stream_seed(seed, "libra", "calibration"))
    networks = accuracy_A.index if network_A is None else network_A.loc[accuracy_A.index]
    fit, rest = parted(rng, count, networks.to_numpy())
    options = {name: settings[name] for name in ("mode", "window", "duplicate")}
    choice = choose(*(table.iloc[fit] for table in labelled), **options, seed=stream_seed(seed, "libra", "gain"))
    truth = accuracy_A.iloc[rest].to_numpy(dtype=np.float64)

    def held_out(ranking: np.ndarray) -> dict:
        low, high = spearman_interval(ranking, truth, seed=stream_seed(seed, "libra", "bootstrap"))
        return {"spearman": spearman(ranking, truth), "low": low, "high": high, "n": len(rest)}

    chosen = sorted(accuracy_A.index[fit])
    # Trees draw features by their position: the search has them in the order of the space, not of their names.
    as_given = replace(reference, feature_AF=None if features is None else feature_AF.loc[features.index])
    predictor = fitted(as_given, accuracy_A, chosen, settings["combiner"], seed)
    others = as_given.take(as_given.score_AP.index.get_indexer(accuracy_A.index[rest]))
    record = {
        **asdict(choice),
        "proxies": choice.proxies,
        "calibration": chosen,
        "held_out": held_out(log_rank(score_AP.iloc[rest][choice.proxies]).to_numpy()),
        "combiner": {
            "name": settings["combiner"],
            "proxies": list(predictor.proxies),
            "held_out": held_out(predictor(others)),
        },
        "consensus": dict(zip(("proxies", "why"), consensus_of(reference), strict=True)),
    }
    return Verdict(record, evaluation.summary, proxy_table(*labelled, seed), predictor)


def fitted(sample: Sample, accuracy_A: pd.Series, calibration: Sequence[str], combiner: str, seed: int) -> Predictor:
    """Fit a combiner on the accuracies of the `calibration` architectures alone, with the whole sample as reference.

    :func:`choose_and_judge` judges it: equal arguments, equal predictor.
    """
    positions = sample.score_AP.index.get_indexer(calibration)
    known = Calibration(sample.take(positions), accuracy_A.loc[list(calibration)], sample)
    record = COMBINERS.get_or_explain(combiner)
    if lacks := record.lacks(known):
        raise LibranasError(
            f"libra.combiner {combiner} needs {', '.join(lacks)}",
            "add it to score.proxies, or choose another combiner",
        )
    return record.fit(known, stream_seed(seed, "libra", "gain"))
