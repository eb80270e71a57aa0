"""Rebuilds the tables about NAS-Bench-201 from the kept scores, in seconds.

    python benchmarks/nasbench201.py TABLE.csv

TABLE.csv is the published table of 9,445 networks (docs/published-benchmarks.md). The scores are those of
``snakemake layers --configfile config/nasbench201.yaml`` (``benchmarks/nasbench201/scores.h5``). Written beside them:
``proxies.csv``, every proxy's Spearman with accuracy, ours and the published one on the same networks;
``table3.csv``, the columns of the paper's Table 3 that the data allow; ``methods.csv``, every combiner by number of
labels.
"""

import argparse
from pathlib import Path

import pandas as pd

from libranas import layers, store
from libranas.combiners import COMBINERS
from libranas.ensemble import evaluate, proxy_table
from libranas.files import write_text
from libranas.spaces import NASBench201Space
from libranas.stats import bootstrap_interval, spearman

HERE = Path(__file__).with_name("nasbench201")
PAPER = Path(__file__).with_name("published") / "paper_table3.csv"
#: Rows of the paper's Table 3 that are one of our columns: name in the table to (column, windowed).
TABLE3 = {
    "ZiCo form log(mu/sigma), all layers": ("zico", False),
    "no mu": ("lswag_lambda", False),
    "Psi only": ("lswag_psi", False),
    "no mu + layers": ("lswag_lambda", True),
    "no mu + Psi": ("lswag", False),
    "full L-SWAG": ("lswag", True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    scores = store.read(HERE / "scores.h5")
    frame = store.frame(scores)
    space = NASBench201Space()
    published = pd.read_csv(arguments.table)
    published.index = pd.Index([space.parse(text).id for text in published["arch"]], name="id")
    published = published.loc[frame.index]
    accuracy, names = published["val_accuracy"], list(scores.proxies)
    ours = proxy_table(frame[names], accuracy, frame["params"])
    theirs = [spearman(published[p], accuracy) if p in published else float("nan") for p in ours["proxy"]]
    agree = [spearman(published[p], frame[p]) if p in published else float("nan") for p in ours["proxy"]]
    ours = ours.assign(published=theirs, agreement=agree)
    write_text(HERE / "proxies.csv", ours.to_csv(index=False, float_format="%.4g"))

    choice = layers.choose_window(layers.curve(scores))
    windowed = layers.table(scores, choice.window)
    rows = []
    paper = pd.read_csv(PAPER, index_col="components")["NB201-C10"]
    extra = {"L-SWAG of samples (ours)": ("lswag_sample", False), "its Psi alone (ours)": ("lswag_sample_psi", False)}
    for title, (column, inside) in {**TABLE3, **extra}.items():
        values = (windowed if inside else frame)[column]
        low, high = bootstrap_interval(spearman, values, accuracy, seed=0)
        rows.append((title, paper.get(title), spearman(values, accuracy), low, high))
    table3 = pd.DataFrame(rows, columns=["components", "paper", "ours", "low", "high"])
    write_text(HERE / "table3.csv", table3.to_csv(index=False, float_format="%.4g"))

    features = pd.DataFrame([space.features(a) for a in scores.archs], index=frame.index)
    methods = [m for m in COMBINERS if m not in ("stack", "lambdarank")]
    judged = evaluate(frame[names], accuracy, frame["params"], [0, 25, 100], 20, 0, methods, feature_AF=features)
    write_text(HERE / "methods.csv", judged.summary.to_csv(index=False, float_format="%.4g"))
    print(f"{len(frame)} networks; layer window {choice.window}")
    print(ours[["proxy", "spearman", "low", "high", "published", "partial_given_params"]].to_string(index=False))
    print(table3.to_string(index=False))
    print(judged.summary.pivot(index="method", columns="n_calibration", values="spearman").round(3).to_string())


if __name__ == "__main__":
    main()
