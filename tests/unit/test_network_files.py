"""Files of other projects: every format is read, written and read again; what is none is explained."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from libranas.accuracy_table import read_table
from libranas.errors import LibranasError
from libranas.network_files import (
    network_space,
    networks_table,
    one_network,
    prenas_json,
    read_file,
    search_space,
    space_settings,
    yaml_text,
)
from libranas.spaces import PiTSpace, make_space

#: TF-TAS-S as its authors publish it: 23.9 M parameters.
TF_TAS = """
SUPERNET: {MLP_RATIO: 4.0, NUM_HEADS: 7, EMBED_DIM: 448, DEPTH: 14}
SEARCH_SPACE:
  MLP_RATIO: [3.0, 3.5, 4.0]
  NUM_HEADS: [5, 6, 7]
  DEPTH: [12, 13, 14]
  EMBED_DIM: [320, 384, 448]
RETRAIN:
  MLP_RATIO: [4.0, 4.0, 4.0, 3.0, 4.0, 3.0, 3.0, 3.5, 4.0, 3.5, 3.5, 4.0, 3.0, 3.5]
  NUM_HEADS: [6, 6, 6, 6, 7, 6, 5, 7, 5, 5, 5, 7, 6, 7]
  DEPTH: 14
  EMBED_DIM: 384
"""
#: The smallest candidate of each of PreNAS's three spaces, with its own count and score.
PRENAS = {
    "6.0": [
        {
            "layer_num": 12,
            "mlp_ratio": [4, 4, 4, 4, 4, 3.5, 3.5, 4, 4, 3.5, 4, 4],
            "num_heads": [4, 4, 4, 4, 3, 3, 3, 3, 3, 4, 3, 4],
            "embed_dim": [192] * 12,
            "num_params": 5.99476,
            "score": 1010076.75,
        }
    ],
    "18.0": [
        {
            "layer_num": 13,
            "mlp_ratio": [4.0, 4.0, 3.5, 4.0, 3.5, 4.0, 4.0, 3.5, 4.0, 4.0, 3.5, 4.0, 4.0],
            "num_heads": [7, 7, 7, 7, 7, 7, 7, 7, 6, 7, 5, 6, 5],
            "embed_dim": [320] * 13,
            "num_params": 17.9914,
            "score": 2764111.5,
        }
    ],
    "42.0": [
        {
            "layer_num": 14,
            "mlp_ratio": [3.0] * 12 + [3.5, 3.0],
            "num_heads": [9] * 14,
            "embed_dim": [528] * 14,
            "num_params": 41.966944,
            "score": 5461899.5,
        }
    ],
}
#: TF-TAS's PiT-Ti.
PIT = """
SEARCH_SPACE:
  PATCH_SIZE: [16]
  MLP_RATIO: [2, 4, 6, 8]
  NUM_HEADS: [2, 4, 8]
  DEPTH:
    - 1,2,3
    - 4,6,8
    - 2,4,6
  BASE_DIM: [16, 24, 32, 40]
RETRAIN: {PATCH_SIZE: [16], MLP_RATIO: [2], NUM_HEADS: [2, 4, 8], DEPTH: [2, 4, 4], BASE_DIM: [40, 40, 40]}
"""


def read(content, **settings):
    """The table of the networks and their space, at the published task."""
    space = network_space(content, settings, 224, 3, 1000)
    return networks_table(content, space), space


def test_a_network_of_tf_tas():
    content = yaml.safe_load(TF_TAS)
    table, space = read(content)
    assert table["params"].tolist() == [23_935_336]
    small = make_space({"family": "autoformer", "preset": "small"}, 224, 3, 1000)
    assert space == small == make_space(space_settings(content), 224, 3, 1000)
    arch = space.parse(table["architecture"][0])
    assert arch["num_heads"][4] == 7 and arch["mlp_ratio"][3] == 3.0
    assert yaml.safe_load(yaml_text(space, arch)) == content
    assert yaml_text(space, arch).index("SUPERNET") < yaml_text(space, arch).index("RETRAIN")


def test_networks_of_prenas_have_the_sizes_that_it_states():
    table, space = read(PRENAS)
    assert (table["params"] / 1e6).tolist() == table["num_params"].tolist()
    assert table["name"].tolist() == ["6.0", "18.0", "42.0"] and table["score"][2] == 5461899.5
    archs = [space.parse(text) for text in table["architecture"]]
    written = json.loads(prenas_json(space, archs))
    assert list(written) == list(PRENAS)
    for size, entries in PRENAS.items():
        assert written[size] == [{k: v for k, v in entry.items() if k != "score"} for entry in entries]
    assert [space.parse(json.dumps(entry)) for entries in written.values() for entry in entries] == archs


def test_networks_of_one_size_stay_together():
    space = make_space({"family": "autoformer", "preset": "tiny"}, 224, 3, 1000)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(30)]
    table, again = read(json.loads(prenas_json(space, archs)), preset="tiny")
    assert again == space and sorted(table["architecture"]) == sorted(a.json for a in archs)


def test_a_pit_of_tf_tas():
    content = yaml.safe_load(PIT)
    table, space = read(content)
    assert space == PiTSpace() == make_space(space_settings(content), 224, 3, 1000)
    arch = space.arch(40, 2.0, (2, 4, 4), (2, 4, 8))
    assert table["architecture"].tolist() == [arch.json] and table["params"][0] == space.params(arch)
    assert yaml.safe_load(yaml_text(space, arch)) == content


def test_every_file_that_is_written_is_read_again():
    rng = np.random.default_rng(0)
    for settings in (
        {"family": "autoformer", "preset": "digits", "patch_size": 16},
        {"family": "autoformer", "preset": "vit-bench-101"},
        {"family": "pit", "base_dim": [4, 5], "num_heads": [1, 3]},
    ):
        space = make_space(settings, 224, 3, 1000)
        for _ in range(5):
            arch = space.sample(rng)
            content = yaml.safe_load(yaml_text(space, arch))
            assert space.parse(yaml_text(space, arch)) == arch
            choices = make_space(settings | space_settings(content), 224, 3, 1000)
            assert choices == space
            table, _ = read([json.loads(arch.json)] * 2, **settings)
            assert table["architecture"].tolist() == [arch.json] * 2
    assert search_space(make_space({"family": "autoformer", "preset": "tiny"}, 224, 3, 10))["SUPERNET"] == {
        "EMBED_DIM": 256, "DEPTH": 14, "NUM_HEADS": 4, "MLP_RATIO": 4.0,
    }  # fmt: skip


def test_vit_bench_101_becomes_a_table_of_the_workflow(shared_dir, tmp_path):
    for name, settings in (("autoformer_tiny_set1", {"preset": "vit-bench-101"}), ("pit", {})):
        content = read_file(shared_dir / "data" / "vit_bench_101" / f"{name}.json")
        table, space = read(content, **settings)
        assert len(table) == 100 and table["c100_kd_acc"].tolist() == [row["c100_kd_acc"] for row in content]
        table.to_csv(tmp_path / "table.csv", index=False)
        accuracies = read_table(tmp_path / "table.csv", space, accuracy="chaoyang_base_acc")
        assert accuracies["accuracy"].tolist() == table["chaoyang_base_acc"].tolist()
        assert [a.json for a in accuracies["arch"]] == table["architecture"].tolist()


def test_lists_with_names_and_counts_of_their_own(shared_dir):
    table, space = read(read_file(shared_dir / "data" / "published_vits.json"))
    assert table["params"].tolist() == table["stated_params"].tolist() and "AZ-NAS-S" in table["name"].tolist()
    assert space.embed_dim == (192, 384, 528, 576)
    assert isinstance(table, pd.DataFrame)


def test_one_network_of_a_file():
    _, space = read(PRENAS)
    assert one_network(PRENAS["18.0"], space, "file")["embed_dim"] == 320
    with pytest.raises(LibranasError, match="file: there are 3 networks"):
        one_network(PRENAS, space, "file")
    with pytest.raises(LibranasError, match="file: there is no network"):
        one_network({}, space, "file")


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, [], {}, 3, "text", {"a": [1, 2]}, {"SEARCH_SPACE": {}}])
def test_files_without_networks(content):
    with pytest.raises(LibranasError, match=r"there is no network.(.|\n)*RETRAIN"):
        read(content, preset="tiny")


def test_a_network_outside_of_the_space_is_shown():
    with pytest.raises(LibranasError, match=r"448.*is not a member"):
        read([{"embed_dim": 448, "depth": 1, "num_heads": [5], "mlp_ratio": [3.0]}], preset="tiny")


@pytest.mark.parametrize("heads", [[[3]], ["3", 4], None])
def test_genes_that_are_no_numbers(heads):
    with pytest.raises(LibranasError, match=r"no space|no choices|not a member"):
        read([{"embed_dim": 192, "depth": 1, "num_heads": heads, "mlp_ratio": [3.0]}])


@pytest.mark.parametrize(
    "section",
    [
        {"MLP_RATIO": [3.0], "NUM_HEADS": [3], "DEPTH": [12]},
        {"MLP_RATIO": {320: [[4.0]]}, "NUM_HEADS": {320: [[7]]}, "DEPTH": {320: [13]}, "EMBED_DIM": [320]},
        {"MLP_RATIO": [3.0], "NUM_HEADS": 3, "DEPTH": [12], "EMBED_DIM": [192]},
        {"MLP_RATIO": [2], "NUM_HEADS": [2], "DEPTH": ["1,x", "2", "3"], "BASE_DIM": [16]},
        [1, 2],
    ],
)
def test_search_spaces_of_another_kind(section):
    with pytest.raises(LibranasError, match=r"SEARCH_SPACE is not the space of an AutoFormer or PiT"):
        space_settings({"SEARCH_SPACE": section})
    assert space_settings({"RETRAIN": {}}) is None and space_settings([]) is None


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LibranasError, match=r"absent.yaml cannot be read as YAML or JSON \(No such file"):
        read_file(tmp_path / "absent.yaml")
    for name, text in (("a.json", "{"), ("b.yaml", "a: ]"), ("c.yaml", b"\xff\xfe\x00")):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(LibranasError, match=rf"{name} cannot be read as YAML or JSON"):
            read_file(path)
