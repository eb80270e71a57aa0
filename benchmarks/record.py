"""Record a finished run under benchmarks/RUN/ and write its numbers into the README.

    python benchmarks/record.py results/digits

Copies the small result files (with their conditions) and fills the marked places of README.md from the copies, so
that a number in the README always comes from a file that the workflow made. tests/contract/test_readme.py checks it.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "train/summary.json",
    "libra/choice.json",
    "libra/methods.csv",
    "libra/proxies.csv",
    "layers/window.json",
    "layers/curve.csv",
    "benchmark/agreement.json",
)
NAMES = {"winner": "the winner", "random": "random, equal size", "params_max": "largest of the budget"}


def results_text(folder: Path) -> str:
    """The README's section of results, from recorded files."""
    summary = json.loads((folder / "summary.json").read_text())
    choice = json.loads((folder / "choice.json").read_text())
    methods = pd.read_csv(folder / "methods.csv").sort_values("spearman", ascending=False)
    facts = summary["facts"]
    lines = ["| network | parameters | test accuracy, mean of 3 seeds (95 % interval) |", "|---|---|---|"]
    for role, r in summary["roles"].items():
        a = r["test_accuracy"]
        interval = "all equal" if a["low"] is None else f"{100 * a['low']:.2f} to {100 * a['high']:.2f}"
        lines.append(f"| {NAMES[role]} | {r['params']:,} | {100 * a['mean']:.2f} % ({interval}) |")
    held = choice["held_out"]
    lacking = "".join(
        f"; {m.method} was not judged, it needs {m.lacks}" for m in methods.itertuples() if m.lacks == m.lacks
    )
    methods = methods.dropna(subset="spearman")
    best = ", ".join(f"{m.method} {m.spearman:.2f}" for m in methods.itertuples()) + lacking
    lines += [
        "",
        summary["verdict"],
        "",
        f"LIBRA chose {', '.join(choice['proxies'])} from {choice['n']} labels; on {held['n']} other architectures "
        f"the combination has Spearman {held['spearman']:.2f} (95 % bootstrap interval {held['low']:.2f} to "
        f"{held['high']:.2f}). Every method with {methods['n_calibration'].iloc[0]} labels, mean Spearman over "
        f"{methods['splits'].iloc[0]} random splits: {best}.",
        "",
        f"Conditions: one search, seed 1; {facts['cpu']}, {facts['cores']} cores, no GPU; Python {facts['python']}, "
        f"torch {facts['packages']['torch']}, timm {facts['packages']['timm']}. Files: "
        f"[benchmarks/{folder.name}](benchmarks/{folder.name}).",
    ]
    return "\n".join(lines)


def agreement_text(folder: Path) -> str:
    """How well supernet and training agree, in a sentence."""
    a = json.loads((folder / "agreement.json").read_text())
    return (
        f"On {a['n']} architectures of the default space its Spearman with training from scratch is "
        f"{a['spearman']:.2f} (95 % interval {a['low']:.2f} to {a['high']:.2f}), where two seeds of training agree "
        f"with {a['between_seeds']:.2f}."
    )


def filled(readme: str, folder: Path) -> str:
    """`readme` with its marked places filled from `folder`."""
    places = {
        "results": "\n" + results_text(folder) + "\n",
        "agreement": agreement_text(folder),
    }
    for mark, text in places.items():
        readme = re.sub(
            f"<!-- {mark} -->.*?<!-- /{mark} -->",
            lambda _, m=mark, t=text: f"<!-- {m} -->{t}<!-- /{m} -->",
            readme,
            flags=re.S,
        )
    return readme


def main(run: Path) -> None:
    folder = ROOT / "benchmarks" / run.name
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copy(run / name, folder / Path(name).name)
    if run.name == "digits":
        readme = ROOT / "README.md"
        readme.write_text(filled(readme.read_text(), folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
