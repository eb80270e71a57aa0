"""Tables of ``benchmarks/vit-six`` as docs/vit-six.md and docs/vision-transformers.md show them."""

from pathlib import Path

import pandas as pd

HERE = Path(__file__).with_name("vit-six")
SEARCH = Path(__file__).with_name("search")
#: Task to its title, in the order of the correlation with size.
TITLES = {
    "clothing": "clothes",
    "fashion": "Fashion-MNIST",
    "digits": "digits",
    "cifar10": "CIFAR-10",
    "grocery": "groceries",
    "sphere": "Spherical CIFAR-10",
}
#: Random networks of short trainings.
SHORT = {"digits": "digits, short", "cifar10-small": "CIFAR-10, short"}


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(HERE / f"{name}.csv")


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def interval(low: float, high: float) -> str:
    return f"({low:.2f} to {high:.2f})"


def noise_text() -> str:
    rows = []
    for task in read("noise").itertuples():
        points = [f"{100 * value:.1f}" for value in (task.noise_std, task.network_std)]
        seeds = f"{task.seeds_spearman:.2f} {interval(task.seeds_low, task.seeds_high)}"
        ceiling = f"{task.ceiling:.2f} {interval(task.low, task.high)}"
        rows.append([task.task, f"{100 * task.accuracy:.1f} %", *points, seeds, ceiling])
    return table(["task", "mean accuracy", "noise", "networks", "two seeds agree", "ceiling"], rows)


def correlations_text() -> str:
    """What correlates with accuracy on each task, and what a perfect predictor would have."""
    found = read("correlations").pivot(index="choice", columns="task", values="spearman")
    ceilings = read("noise").set_index("task")["ceiling"]
    short = [pd.read_csv(SEARCH / f"random-{name}.csv") for name in SHORT]
    rows = []
    for column, choice in {
        "params": "parameters",
        "embed_dim": "width",
        "patch_size": "size of the patch",
        "macs": "MACs",
        "depth": "depth",
    }.items():
        of_short = [f"{table[column].corr(table['accuracy'], 'spearman'):.2f}" for table in short]
        rows.append([choice, *of_short, *(f"{found.loc[choice, task]:.2f}" for task in TITLES)])
    rows.append(["noise ceiling", "", "", *(f"{ceilings[task]:.2f}" for task in TITLES)])
    return table(["", *SHORT.values(), *TITLES.values()], rows)


def labels_text() -> str:
    """Combiners by number of labels, in the mean over the tasks."""
    found = read("within").pivot_table("spearman", "method", "n_calibration")
    titles = {
        "blend": "blend (the default)",
        "libra_corrected": "corrected LIBRA",
        "consensus": "consensus",
        "params": "#params",
    }
    rows = [
        [title, *("" if pd.isna(value) else f"{value:.2f}" for value in found.loc[method])]
        for method, title in titles.items()
    ]
    rows.append(["noise ceiling", *[f"{read('noise')['ceiling'].mean():.2f}"] * len(found.columns)])
    return table(["labels", *map(str, found.columns)], rows)


def label_free_text() -> str:
    """Rankings without labels, and the consensus less size."""
    found = read("label_free").set_index(["task", "method"])
    methods = {
        "consensus": "consensus",
        "nngp": "nngp",
        "jacov": "jacov",
        "nwot": "nwot",
        "lswag": "L-SWAG",
        "params": "#params",
        "flops": "MACs",
    }
    rows = []
    for task, title in {**TITLES, "mean": "**mean**"}.items():
        one = found.loc[task, "consensus"]
        less = [
            f"{one[f'less_{size}']:+.2f} {interval(one[f'less_{size}_low'], one[f'less_{size}_high'])}"
            for size in ("params", "flops")
        ]
        each = [f"{found.loc[(task, method), 'spearman']:.2f}" for method in methods]
        rows.append([title, *each, *less, f"{one['ceiling']:.2f}"])
    return table(["task", *methods.values(), "consensus less #params", "less MACs", "noise ceiling"], rows)


def budgets_text() -> str:
    """The best choice of patch and width at every budget: mean accuracy, and how much above the worst."""
    found, rows = read("choices"), []
    for task, title in TITLES.items():
        row = [title]
        for third in ("least MACs", "middle MACs", "most MACs"):
            for gene in ("patch", "width"):
                own = found[(found["task"] == task) & (found["among"] == third) & (found["gene"] == gene)]
                own = own[own["networks"] >= 3].sort_values("mean")
                best, worst = own.iloc[-1], own.iloc[0]
                row.append(f"{best['choice']} ({100 * (best['mean'] - worst['mean']):+.1f})")
        rows.append(row)
    thirds = ("few MACs", "middle", "many MACs")
    return table(["images", *(f"{third}: {gene}" for third in thirds for gene in ("patch", "width"))], rows)


def effects_text() -> str:
    """What a choice is worth with the others held fixed, in points."""
    found = read("effects")
    found[["effect", "low", "high"]] *= 100
    rows = []
    for choice in found["choice"].unique():
        own = found[found["choice"] == choice].set_index("task")
        cells = [
            f"{own.loc[task, 'effect']:+.1f} ({own.loc[task, 'low']:.1f} to {own.loc[task, 'high']:.1f})"
            for task in TITLES
        ]
        rows.append([choice, *cells])
    return table(["choice", *TITLES.values()], rows)


def places(docs: Path) -> dict[Path, dict[str, str]]:
    """Page to the texts of its marked places."""
    texts = {
        "correlations": correlations_text(),
        "labels": labels_text(),
        "label free": label_free_text(),
        "budgets": budgets_text(),
        "effects": effects_text(),
    }
    return {
        docs / "vit-six.md": {"noise": f"\n{noise_text()}\n"},
        docs / "vision-transformers.md": {mark: f"\n{text}\n" for mark, text in texts.items()},
    }
