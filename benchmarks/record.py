"""Record a finished run under benchmarks/RUN/ and write recorded numbers into the pages.

    python benchmarks/record.py results/digits       # or results/published

Copies the small result files (with their conditions) and fills the marked places of README.md and docs/ from what is
recorded. So a number there always comes from a file. tests/contract/test_readme.py checks it.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import vit_six_pages

from libranas.labels.agreement import between_seeds
from libranas.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
FILES = {
    "digits": (
        *("summary", "choice", "methods", "proxies", "parts", "window", "curve"),
        *("selected", "history", "labels_agreement", "accuracy"),
    ),
    "published": ("table1", "table3", "table4", "means", "labels"),
}
#: Rows of the README's table of methods on published benchmarks.
SHOWN = {
    "blend": "blend",
    "blend_proxies": "blend, proxies only",
    "blend_features": "blend, features only",
    "ridge_ranks": "ridge on ranks",
    "libra_corrected": "LIBRA, corrected",
    "libra_literal": "LIBRA, literal",
    "consensus": "consensus",
    "params": "#params",
}
NAMES = {
    "winner": "the winner",
    "random": "random, equal size",
    "params_max": "largest of the budget",
    "random_best": "best of the random networks that were trained",
}


def results_text(folder: Path) -> str:
    """The README's table of results."""
    summary = json.loads((folder / "summary.json").read_text())
    facts = summary["facts"]
    lines = ["| network | parameters | MACs | test accuracy, mean of 3 seeds (95 % interval) |", "|---|---|---|---|"]
    for role, r in summary["roles"].items():
        a = r["test_accuracy"]
        interval = "all equal" if a["low"] is None else f"{100 * a['low']:.2f} to {100 * a['high']:.2f}"
        lines.append(f"| {NAMES[role]} | {r['params']:,} | {r['macs']:,} | {100 * a['mean']:.2f} % ({interval}) |")
    lines += [
        "",
        f"Conditions: one search, seed 1; {facts['cpu']}, {facts['cores']} cores, no GPU; Python {facts['python']}, "
        f"torch {facts['packages']['torch']}, timm {facts['packages']['timm']}.",
    ]
    return "\n".join(lines)


def details_text(folder: Path) -> str:
    """What the default experiment says of the winner, and of what ranks architectures."""
    choice = json.loads((folder / "choice.json").read_text())
    methods = pd.read_csv(folder / "methods.csv").sort_values("spearman", ascending=False)
    held = choice["held_out"]
    lacking = "".join(
        f"; {m.method} was not judged, it needs {m.lacks}" for m in methods.itertuples() if m.lacks == m.lacks
    )
    methods = methods.dropna(subset="spearman")
    best = ", ".join(f"{m.method} {m.spearman:.2f}" for m in methods.itertuples()) + lacking
    return "\n".join(
        [
            results_text(folder),
            "",
            json.loads((folder / "summary.json").read_text())["verdict"],
            "",
            search_text(folder),
            "",
            f"From {choice['n']} networks with a known accuracy (*labels*) LIBRA chose {', '.join(choice['proxies'])}; "
            f"together they rank {held['n']} other networks with a Spearman correlation of {held['spearman']:.2f} "
            f"(95 % bootstrap interval {held['low']:.2f} to {held['high']:.2f}). Mean Spearman of every method with "
            f"{methods['n_calibration'].iloc[0]} labels over {methods['splits'].iloc[0]} random splits: {best}.",
            "",
            f"Files: [benchmarks/{folder.name}](../benchmarks/{folder.name}).",
        ]
    )


def search_text(folder: Path) -> str:
    """What the guided search trained, and how well its labels agree."""
    history, random = pd.read_csv(folder / "guided.csv"), pd.read_csv(folder / "train.csv")
    means, a = random.groupby("id")["accuracy"].mean(), json.loads((folder / "agreement.json").read_text())
    seeds = between_seeds(random, 1)
    return (
        f"Guided search trained {len(history)} networks for a short time, in {history['round'].max() + 1} rounds: "
        f"validation accuracy {100 * history['accuracy'].median():.1f} % in the median, "
        f"{100 * history['accuracy'].max():.1f} % at best. {len(means)} random networks have "
        f"{100 * means.median():.1f} % and {100 * means.max():.1f} %. "
        f"Short and long trainings of {a['n']} networks agree with Spearman {a['spearman']:.2f} (95 % interval "
        f"{a['low']:.2f} to {a['high']:.2f}), two seeds of the short one on {seeds['n']} networks with "
        f"{seeds['spearman']:.2f} ({seeds['low']:.2f} to {seeds['high']:.2f})."
    )


def seeds_text(files: dict[str, Path]) -> str:
    """What several searches found, against guided search, on every set of images."""
    results = {images: json.loads(path.read_text()) for images, path in files.items()}
    titles = {
        "guided": "guided search",
        "evolution": "evolution on accuracies",
        "random": "best of random networks",
        "equal size": "random, same size",
        "largest": "largest of the budget",
    }
    columns = ["network", *(column for images in results for column in (images, "guided gains"))]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, title in titles.items():
        cells = [title]
        for result in results.values():
            cells.append(f"{100 * result['test_accuracy'][name]['mean']:.2f}")
            gain = {key: 100 * value for key, value in result["guided_minus"].get(name, {}).items()}
            cells.append("{mean:+.2f} ({low:+.2f} to {high:+.2f})".format(**gain) if gain else "")
        lines.append(f"| {' | '.join(cells)} |")
    counts = " and ".join(str(result["seeds"]) for result in results.values())
    commits = " and ".join(result["facts"]["commit"][:7] for result in results.values())
    facts = next(iter(results.values()))["facts"]
    said = (
        f"Mean test accuracy (%) and differences with 95 % intervals, paired by seed; {counts} searches; 3 final "
        f"trainings each; {facts['cpu']}, torch {facts['packages']['torch']}, commits {commits}."
    )
    return "\n".join([*lines, "", said])


def agreement_text(folder: Path) -> str:
    """How well supernet and training agree, in a sentence."""
    a = json.loads((folder / "agreement.json").read_text())
    seeds = a["between_seeds"]
    return (
        f"On {a['n']} architectures of the space `digits-autoformer` its Spearman with training from scratch is "
        f"{a['spearman']:.2f} (95 % interval {a['low']:.2f} to {a['high']:.2f}), where two seeds of training agree "
        f"with {seeds['spearman']:.2f} ({seeds['low']:.2f} to {seeds['high']:.2f})."
    )


def published_text(folder: Path) -> str:
    """Methods on published tables by number of labels, and how many columns of the paper's Table 1 are beaten."""
    labels = pd.read_csv(folder / "labels.csv").pivot(index="method", columns="k", values="spearman")
    table1 = pd.read_csv(folder / "table1.csv", index_col="column")
    judged, lost = table1.dropna(subset="ours").drop(index="mean"), []
    for column, row in judged[judged["better"] == 0].iterrows():
        lost.append(f"{column} {row['ours']:.2f} against {row['LIBRA']:.2f}")
    counts = [k for k in labels.columns if k]
    lines = [
        f"Mean Spearman over the {len(judged)} of the 19 columns of the paper's Table 1 for which tables are at hand, "
        "on networks of which none was used for fitting (20 random choices of the labelled ones):",
        "",
        f"| labels | 0 | {' | '.join(map(str, counts))} |",
        "|---" * (2 + len(counts)) + "|",
    ]
    for method, title in SHOWN.items():
        rho = labels.loc[method]
        free = rho.notna()[0]
        cells = [f"{rho[0]:.2f}" if free else ""] + ["" if free else f"{rho[k]:.2f}" for k in counts]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    mean = table1.loc["mean"]
    lines += [
        "",
        f"With 100 labels the blend is above the paper's LIBRA ({mean['LIBRA']:.2f} on these columns, judged on the "
        f"architectures that chose it) in {len(judged) - len(lost)} of {len(judged)} columns"
        + (f" ({'; '.join(lost)})" if lost else "")
        + f"; the consensus, which sees no label, is to be compared with the paper's AZ-NAS, {mean['AZ-NAS']:.2f}. "
        "Every column: [benchmarks](../benchmarks/README.md).",
    ]
    return "\n".join(lines)


def places() -> dict[Path, dict[str, str]]:
    """Page to the texts of its marked places, from the recorded files."""
    digits, searches = BENCHMARKS / "digits", BENCHMARKS / "search"
    files = {"digits": "trained-digits.json", "CIFAR-10, 4,000 images": "trained-cifar10-small.json"}
    seeds = f"\n{seeds_text({images: searches / name for images, name in files.items()})}\n"
    return {
        ROOT / "README.md": {"seeds": seeds},
        ROOT / "docs" / "results.md": {
            "seeds": seeds,
            "details": f"\n{details_text(digits)}\n",
            "agreement": agreement_text(BENCHMARKS / "digits-autoformer"),
            "published": f"\n{published_text(BENCHMARKS / 'published')}\n",
        },
        **vit_six_pages.places(ROOT / "docs"),
    }


def filled(page: str, texts: dict[str, str]) -> str:
    """`page` with its marked places filled."""
    for mark, text in texts.items():
        new = f"<!-- {mark} -->{text}<!-- /{mark} -->"
        page = re.sub(f"<!-- {mark} -->.*?<!-- /{mark} -->", lambda _, new=new: new, page, flags=re.S)
    return page


def fill_pages() -> None:
    for page, texts in places().items():
        page.write_text(filled(page.read_text(), texts))


def main(run: Path) -> None:
    for name in FILES[run.name]:
        shutil.copy(RunFolder(run, {}).path(name, strategy="guided", method="train"), BENCHMARKS / run.name)
    fill_pages()


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).name not in FILES:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
