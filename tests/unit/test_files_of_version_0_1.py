"""Files of version 0.1.0 (tests/data/version-0.1/README.md): what is read, what goes on, and what is made again."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import yaml

import libranas.nets  # noqa: F401 - registers its architectures with timm
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.files import read_log
from libranas.labels.short_training import train_each
from libranas.scores.shard import score_shard
from libranas.spaces import make_space
from libranas.spaces.file_formats import one_network, read_file
from libranas.training.checkpoints import Checkpoints
from libranas.training.images import ImageSet
from libranas.training.recipe import ShortRecipe
from libranas.training.run_state import is_same_run
from libranas.training.settings import Settings

FILES = Path(__file__).parents[1] / "data/version-0.1"
TINY = yaml.safe_load((Path(__file__).parents[1] / "workflow/tiny.yaml").read_text())
SPACE = make_space(TINY["space"], 8, 1, 10)
ARCH = Arch.from_json('{"depth":3,"embed_dim":16,"family":"autoformer","mlp_ratio":[1,1,1.5],"num_heads":[1,1,2]}')


def test_scoring_goes_on_from_its_log(tmp_path):
    """Under equal keys nothing is scored again; the keys name versions of stage and libraries."""
    path = shutil.copy(FILES / "score.jsonl", tmp_path)
    arch = SPACE.canonical(ARCH)
    keys = read_log(path)[0]["keys"]
    scorer = SimpleNamespace(space=SPACE, keys=lambda names: keys, card=None, conditions={}, options={})
    scores = score_shard(scorer, [arch], 2, list(keys), path)
    assert scores.archs[0].id == "c7ac99b417bb" and len(scores.proxies) == 12
    assert scores.proxies["lswag"].value_AS[0, 0] == 29962.156370121324
    assert scores.proxies["zico"].value_AS[0, 0] == 74.52982286203701
    assert scores.proxies["lswag_lambda"].components["log_sigma"].values.shape[:2] == (1, 2)


def test_short_trainings_are_read_but_not_taken_over(tmp_path, caplog):
    """Their stage has another version since; what was trained then stays in the log."""
    path = shutil.copy(FILES / "labels.jsonl", tmp_path)
    before = read_log(path)
    assert len(before) == 13 and before[0]["arch"] == "c7ac99b417bb" and before[0]["accuracy"] == 25 / 60
    pixels = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(20) % 10, (0.3,), (0.4,), 10)
    recipe = ShortRecipe(epochs=1, batch_size=20, lr=0.01, warmup_epochs=0)
    with caplog.at_level("INFO", "libranas"):
        train_each(SPACE, [SPACE.canonical(ARCH)], images, images, recipe, [1], 3, Path(path), "key of today")
    after = read_log(path)
    assert after[:13] == before and [record["key"] for record in after[13:]] == ["key of today"]
    assert "13 trainings in the logs were made with other settings, data or versions; they are not used" in caplog.text


def test_a_training_is_read_but_begins_anew(tmp_path, caplog):
    metrics = read_log(FILES / "metrics.jsonl")
    assert len(metrics) == 22 and metrics[1]["event"] == "epoch" and metrics[-1]["step"] == 120
    folder = shutil.copytree(FILES / "checkpoints", tmp_path / "checkpoints")
    kept = Checkpoints(folder)
    path, state = kept.newest()
    assert path.name == "step-000000108-037add9c34965d02.pt" and state["step"] == 108
    assert len(state["history"]) == 9 and state["history"][-1]["val_accuracy"] == 0.8
    assert state["model"]["cls_token"].double().sum().item() == pytest.approx(0.1062537431716919, rel=1e-9)
    # Of this network and these images the key was another one then.
    now = {**state["identity"], "network and data": "key of today"}
    settings = Settings(tmp_path, state["identity"]["seed"], "key of today")
    with pytest.raises(LibranasError, match="network and data was 'd3192ad7f42511d3', is 'key of today'"):
        kept.newest(lambda found: is_same_run(found["identity"], now, settings))
    with caplog.at_level("INFO", "libranas"):
        assert kept.newest(lambda found: False) is None and kept.paths() == []
    assert f"Checkpoints in {folder} are of other settings, data or versions" in caplog.text


def test_an_export_loads_and_computes_the_same():
    model = timm.create_model(f"local-dir:{FILES / 'export'}", pretrained=True).eval()
    with torch.no_grad():
        logits = model(torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8))[0]
    expected = [-1.40316916, 1.28434242, 1.63828051, -1.09686351, -0.69600785, 0.80031741, -1.98769569]
    assert logits.tolist() == pytest.approx([*expected, -3.20608826, -0.42172277, 4.14616585], rel=1e-4)
    assert model.pretrained_cfg["mean"] == [0.30611397058823525]
    network = one_network(read_file(FILES / "export/autoformer.yaml"), SPACE, "the file")
    assert network.id == "5c7a51829dd2" and "81.67 %" in (FILES / "export/README.md").read_text()
