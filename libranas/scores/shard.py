"""Score a shard of architectures, with progress that survives a kill."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.files import AppendLog
from libranas.core.progress import silent
from libranas.core.provenance import facts
from libranas.core.scorecard import ScoreCard
from libranas.zero_cost import registry as proxies
from libranas.zero_cost.scorer import Scorer


def gather(
    scorer: Scorer, archs: Sequence[Arch], seeds: Sequence[int], cards: dict, names: Sequence[str], facts: Mapping
) -> store.Scores:
    """Put score cards into the store's arrays; `facts` go into the provenance beside the conditions."""
    info, options = {}, proxies.Options(**scorer.options)
    for name in names:
        p = proxies.get(name)
        ran = (card.scores[name].pass_name for card in cards.values() if name in card.scores)
        info[name] = {
            "version": p.version,
            "orientation": p.orientation,
            "pass": next(ran, p.charged(options).name),
            "equation": f"{p.title} ({p.source})",
            "component_axes": p.components,
            "precision": p.charged(options).precision or options.precision,
        }
    params, macs = [scorer.space.params(a) for a in archs], [scorer.space.macs(a) for a in archs]
    return store.collect(archs, params, macs, seeds, cards, info, {"conditions": scorer.conditions, **facts})


def _write(log: AppendLog, arch: Arch, seed: int, keys: Mapping, card: ScoreCard) -> None:
    of_card = {name: keys[name] for name in card.scores if name in keys}
    log.append({"arch": arch.id, "seed": seed, "keys": of_card, "card": card.to_record()})


def score_shard(
    scorer: Scorer,
    archs: Sequence[Arch],
    seeds: int,
    names: Sequence[str],
    log_path: Path,
    progress: Callable = silent,
) -> store.Scores:
    """Score a shard with a number of `seeds`, going on from what its progress log holds.

    The log is keyed by everything a value depends on, versions of proxies and libraries included: adding a
    proxy computes that proxy alone, and a record from other conditions is never used.
    """
    names = proxies.with_parts(names)
    keys = scorer.keys(names)
    cards: dict[tuple[str, int], ScoreCard] = {}
    # Records are written while the next network is scored; the first error of a write ends the job.
    with AppendLog(log_path) as log, ThreadPoolExecutor(1) as writer:
        writing: Future | None = None
        for record in log.records:
            card = ScoreCard.from_record(record["card"])
            valid = {n: s for n, s in card.scores.items() if keys.get(n) == record["keys"].get(n)}
            place = record["arch"], record["seed"]
            if valid:
                kept = ScoreCard(valid, card.axes, card.passes, card.excluded, card.warnings)
                cards[place] = cards[place].merged(kept) if place in cards else kept
        work = [(arch, s) for arch in archs for s in range(seeds)]
        for arch, s in progress(work, len(work), "scoring"):
            known = cards.get((arch.id, s))
            missing = [n for n in names if known is None or n not in known.scores]
            if not missing:
                continue
            card = scorer.card(arch, s, missing)
            if writing:  # at most two networks are lost to a kill
                writing.result()
            writing = writer.submit(_write, log, arch, s, keys, card)
            cards[arch.id, s] = known.merged(card) if known else card
        if writing:
            writing.result()
    wanted = {(a.id, s) for a, s in work}
    return gather(scorer, archs, range(seeds), {k: c for k, c in cards.items() if k in wanted}, names, facts())
