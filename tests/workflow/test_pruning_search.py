"""The workflow whose winner is a pruned supernet: what it plans, and what it refuses."""

from conftest import ROOT, Run

PRESET = ROOT / "config" / "darts.yaml"


def test_the_preset_plans_a_pruning_in_the_place_of_evolution(fresh):
    (fresh.folder / "images").mkdir()
    (fresh.folder / "table.csv").write_text("arch,val_accuracy\n")
    changes = {"data": {"path": str(fresh.folder / "images")}, "benchmark": {"table": str(fresh.folder / "table.csv")}}
    planned = fresh.planned(changes=changes, configfiles=(PRESET,))
    assert planned["prune"] == 1 and planned["search"] == 2 and planned["train"] == 9 and planned["export"] == 1


def test_what_does_not_fit_pruning(fresh: Run):
    output = fresh.fail("libra", changes={"search": {"method": "pruning"}})
    assert "search.method: pruning is for space.family darts, not for autoformer" in output
    assert "budget.params: search.method pruning keeps to no budget; set it to null" in output
