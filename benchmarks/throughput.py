"""Scoring many architectures on many devices: what wall time and device hours come to, on paper and simulated.

    python benchmarks/throughput.py

A job scores a shard. Each waits for the driver to submit it, starts (Python, PyTorch, data, the Snakemakes around it),
and scores its networks one after the other. On paper, with A networks of c seconds in N shards on G devices and o
seconds of overhead a job,

    wall time = (A c / N + o) max(1, N / G) + p        device hours = (A c + N o) / 3600

where p is what it takes to notice the last end. The simulation draws every network's cost from recorded ones (seconds
of all passes of the 1,000 networks in benchmarks/nasbench201/scores.h5, on one shared core of an AMD EPYC) and sizes of
shards as hashed ids make them, and runs the jobs in order on the devices. Writes benchmarks/scale/throughput.csv: for
each A, G and cost (the recorded one and multiples, since no GPU was at hand), both numbers for the number of shards
that the workflow chooses by itself, and the best of all numbers tried. The knee is the most devices of which each still
does half of what one does alone.
"""

import argparse
import heapq
from pathlib import Path

import numpy as np
import pandas as pd

from libranas import scores as store
from libranas.core.files import write_text
from libranas.core.shards import shards_for

HERE = Path(__file__).parent
ARCHITECTURES = (10**4, 10**5, 10**6, 10**7)
DEVICES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
COSTS = (0.1, 1.0, 10.0)  # times the recorded one
#: Seconds: between two submissions, from a free device to the first network, until Snakemake notices an end.
SUBMIT, START, NOTICE = 0.2, 15.0, 30.0
#: Jobs in the queue at a time (`jobs` of the profile), in addition to those at work.
QUEUED = 100


def recorded() -> np.ndarray:
    """Seconds of each network of the recorded run: all passes, all initialisations."""
    scores = store.read(HERE / "nasbench201/scores.h5")
    return sum(np.nan_to_num(table.seconds_AS) for table in scores.passes.values()).sum(1)


def on_paper(architectures: int, shards: int, devices: int, cost: float) -> tuple[float, float]:
    """Wall seconds and device hours; see above."""
    wall = (architectures * cost / shards + START) * max(1.0, shards / devices) + NOTICE
    return wall, (architectures * cost + shards * START) / 3600


def simulated(architectures: int, shards: int, devices: int, costs: np.ndarray, rng) -> tuple[float, float]:
    """The same from jobs that are run one by one; sums of costs of large shards are drawn as normal."""
    sizes = rng.multinomial(architectures, np.full(shards, 1 / shards))
    mean, deviation = costs.mean(), costs.std()
    small = sizes < 200
    work = np.where(small, 0.0, rng.normal(mean * sizes, deviation * np.sqrt(sizes)))
    work[small] = [rng.choice(costs, size).sum() for size in sizes[small]]
    free, ends, wall = [0.0] * devices, [], 0.0  # when each device is free; ends of jobs in the queue
    submitted = 0.0
    for seconds in work + START:
        submitted += SUBMIT
        if len(ends) >= devices + QUEUED:  # Snakemake submits another one when it has noticed an end
            submitted = max(submitted, heapq.heappop(ends) + NOTICE / 2)
        end = max(heapq.heappop(free), submitted) + seconds
        heapq.heappush(free, end)
        heapq.heappush(ends, end)
        wall = max(wall, end)
    return wall + NOTICE, (work.sum() + shards * START) / 3600


def tried(architectures: int) -> list[int]:
    """Numbers of shards to compare: powers of two, as far as Snakemake plans them in minutes."""
    return [n for n in 2 ** np.arange(0, 15) if n <= architectures]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    costs, rng, rows = recorded(), np.random.default_rng(0), []
    for architectures in ARCHITECTURES:
        shards = shards_for(architectures)
        for factor in COSTS:
            cost = costs.mean() * factor
            for devices in DEVICES:
                paper = on_paper(architectures, shards, devices, cost)
                wall, hours = simulated(architectures, shards, devices, costs * factor, rng)
                best = min((on_paper(architectures, n, devices, cost)[0], n) for n in tried(architectures))
                ideal = architectures * cost / devices
                rows.append(
                    {
                        "architectures": architectures,
                        "seconds_a_network": cost,
                        "devices": devices,
                        "shards": shards,
                        "wall_hours_paper": paper[0] / 3600,
                        "wall_hours": wall / 3600,
                        "device_hours_paper": paper[1],
                        "device_hours": hours,
                        "efficiency": ideal / wall,
                        "best_shards": int(best[1]),
                        "wall_hours_best_paper": best[0] / 3600,
                    }
                )
    table = pd.DataFrame(rows)
    write_text(HERE / "scale/throughput.csv", table.to_csv(index=False, float_format="%.4g"))
    group = table.groupby(["architectures", "seconds_a_network"])
    knee = group.apply(lambda t: t.loc[t["efficiency"] >= 0.5, "devices"].max(), include_groups=False)
    print(f"recorded: {costs.mean():.2f} s a network (median {np.median(costs):.2f}, sd {costs.std():.2f})")
    print("most devices that work at half their worth or more:\n", knee.unstack().to_string())
    apart = (table["wall_hours"] / table["wall_hours_paper"] - 1).abs()
    lost = table["wall_hours_paper"] / table["wall_hours_best_paper"]
    print(f"simulation against paper: median {apart.median():.1%}, most {apart.max():.1%}")
    print(f"wall time against the best number of shards: median {lost.median():.2f}, most {lost.max():.2f}")
    print(table.loc[lost > 1.5, ["architectures", "seconds_a_network", "devices", "shards", "best_shards"]].to_string())


if __name__ == "__main__":
    main()
