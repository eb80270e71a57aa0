"""The workflow whose winner is a pruned supernet: what it plans, and what it refuses."""

import subprocess
import sys

from conftest import ENVIRONMENT, ROOT, Run, job_counts

PRESET = ROOT / "config" / "darts.yaml"


def test_the_preset_plans_a_pruning_in_the_place_of_evolution(fresh):
    (fresh.folder / "images").mkdir()
    (fresh.folder / "table.csv").write_text("arch,val_accuracy\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", str(fresh.folder)]
    command += ["--configfile", str(PRESET), "--dry-run", "--quiet", "rules"]
    command += [
        "--config",
        f"data={{path: {fresh.folder / 'images'}}}",
        f"benchmark={{table: {fresh.folder}/table.csv}}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = job_counts(done.stdout)
    assert planned["prune"] == 1 and planned["search"] == 2 and planned["train"] == 9 and planned["export"] == 1


def test_what_does_not_fit_pruning(fresh: Run):
    output = fresh.fail("libra", changes={"search": {"method": "pruning"}})
    assert "search.method: pruning is for space.family darts, not for autoformer" in output
    assert "budget.params: search.method pruning keeps to no budget; set it to null" in output
