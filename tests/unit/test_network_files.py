"""Files of other projects: every format is read, written and read again; what is none is explained."""

import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from libranas.core.errors import LibranasError
from libranas.labels.table import read_accuracy_table
from libranas.spaces import PiTSpace, make_space
from libranas.spaces.file_formats import (
    network_space,
    networks_table,
    one_network,
    prenas_json,
    read_file,
    search_space,
    space_settings,
    yaml_text,
)

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
PRENAS = yaml.safe_load("""
"6.0":
- layer_num: 12
  mlp_ratio: [4, 4, 4, 4, 4, 3.5, 3.5, 4, 4, 3.5, 4, 4]
  num_heads: [4, 4, 4, 4, 3, 3, 3, 3, 3, 4, 3, 4]
  embed_dim: [192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192]
  num_params: 5.99476
  score: 1010076.75
"18.0":
- layer_num: 13
  mlp_ratio: [4.0, 4.0, 3.5, 4.0, 3.5, 4.0, 4.0, 3.5, 4.0, 4.0, 3.5, 4.0, 4.0]
  num_heads: [7, 7, 7, 7, 7, 7, 7, 7, 6, 7, 5, 6, 5]
  embed_dim: [320, 320, 320, 320, 320, 320, 320, 320, 320, 320, 320, 320, 320]
  num_params: 17.9914
  score: 2764111.5
"42.0":
- layer_num: 14
  mlp_ratio: [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.5, 3.0]
  num_heads: [9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]
  embed_dim: [528, 528, 528, 528, 528, 528, 528, 528, 528, 528, 528, 528, 528, 528]
  num_params: 41.966944
  score: 5461899.5
""")
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
        {"family": "autoformer", "preset": "digits-autoformer", "patch_size": 16},
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


CLOTHING = yaml.safe_load((Path(__file__).parents[2] / "config/clothing.yaml").read_text())


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        ({"family": "autoformer", "preset": "digits-autoformer"}, (8, 1, 10)),
        ({"family": "autoformer", "preset": "image32-patch4"}, (32, 3, 10)),
        (CLOTHING["space"], (CLOTHING["data"]["image_size"], CLOTHING["data"]["channels"], 10)),
        ({"family": "autoformer", "preset": "vit-bench-101"}, (224, 3, 100)),
        ({"family": "pit", "patch_size": 8, "stride": 3}, (32, 1, 10)),
        ({"family": "pit", "patch_size": 4}, (224, 3, 1000)),
    ],
)
def test_a_network_read_back_is_the_network_that_was_written(settings, task):
    space = make_space(settings, *task)
    rng = np.random.default_rng(0)
    for _ in range(5):
        arch = space.sample(rng)
        content = yaml.safe_load(yaml_text(space, arch))
        again = network_space(content, {})
        assert again == space
        read_back = one_network(content, again, "file")
        assert (read_back.id, again.params(read_back)) == (arch.id, space.params(arch))
        # What other projects read is as it was without our section, which says the rest
        assert {name: content[name] for name in search_space(space)} == search_space(space)
        assert set(content) - {"LIBRANAS"} == {*search_space(space), "RETRAIN"}
        assert make_space(space_settings(content), *task) == space
        # What is asked for counts more than what the file says
        changed = network_space(content, {"patch_size": 16}, 48, 3, 7)
        assert (changed.patch_size, changed.image_size, changed.channels, changed.classes) == (16, 48, 3, 7)


def test_our_section_says_only_what_is_not_as_published():
    space = make_space({"family": "autoformer", "preset": "digits-autoformer"}, 8, 1, 10)
    content = yaml.safe_load(yaml_text(space, space.extremes()[1]))
    assert content["LIBRANAS"] == {
        **{"head_dim": 16, "image_size": 8, "patch_size": 2, "channels": 1, "classes": 10},
        **{"max_relative_position": 3, "init_std": 0.1},
    }
    preset = network_space(content, {"preset": "digits-autoformer"})
    assert preset == space and network_space(content, {"preset": "tiny"}, 224).head_dim == 64
    for published in (TF_TAS, PIT):
        content = yaml.safe_load(published)
        space = network_space(content, {})
        assert "LIBRANAS" not in yaml_text(space, one_network(content, space, "file"))
        assert space == network_space(content, {}, 224, 3, 1000)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (3, "cannot be used"),
        (["head_dim"], "cannot be used"),
        ({"heads": 3}, "heads: unknown key"),
        ({1: 3}, "1: unknown key"),
        ({"embed_dim": [3]}, "embed_dim: unknown key"),
        ({"head_dim": [16]}, r"head_dim: expected a whole number or auto or null, got \[16\]"),
        ({"head_dim": "wide"}, "head_dim: expected a whole number or auto or null, got 'wide'"),
        ({"patch_size": 0}, "patch_size: expected more than 0, got 0"),
        ({"patch_size": 2.5}, "patch_size: expected a whole number or a list or null, got 2.5"),
        ({"relative_position": 1}, "expected true or false"),
        ({"init_std": -0.1}, "init_std: expected more than 0, got -0.1"),
        ({"channels": True}, "channels: expected a whole number or null, got True"),
    ],
)
def test_a_section_of_ours_that_cannot_be_used(section, said):
    with pytest.raises(LibranasError, match=rf"the section LIBRANAS .*{said}(.|\n)*head_dim, image_size"):
        network_space(yaml.safe_load(TF_TAS) | {"LIBRANAS": section}, {})


def test_vit_bench_101_becomes_a_table_of_the_workflow(shared_dir, tmp_path):
    for name, settings in (("autoformer_tiny_set1", {"preset": "vit-bench-101"}), ("pit", {})):
        content = read_file(shared_dir / "data" / "vit_bench_101" / f"{name}.json")
        table, space = read(content, **settings)
        assert len(table) == 100 and table["c100_kd_acc"].tolist() == [row["c100_kd_acc"] for row in content]
        table.to_csv(tmp_path / "table.csv", index=False)
        accuracies = read_accuracy_table(tmp_path / "table.csv", space, accuracy="chaoyang_base_acc")
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


def one_block(**changes) -> dict:
    return {"RETRAIN": {"MLP_RATIO": [4.0], "NUM_HEADS": [3], "DEPTH": 1, "EMBED_DIM": 192} | changes}


@pytest.mark.parametrize(
    ("gene", "value"),
    [
        *(("EMBED_DIM", n) for n in (0, -192, 192.5, True, 10**10)),
        *(("NUM_HEADS", [n]) for n in (0, -3, 2.5, float("inf"), float("nan"))),
        *(("MLP_RATIO", [n]) for n in (0, -1.0, float("nan"), float("inf"))),
    ],
)
def test_numbers_that_no_network_can_have(gene, value):
    with pytest.raises(
        LibranasError, match=rf"no space: space.{gene.lower()}.0: expected (more|less|a whole|a number)"
    ):
        read(one_block(**{gene: value}))


def test_settings_that_no_network_can_have():
    entry = {"base_dim": [16], "mlp_ratio": [2], "depth": [1, 4, 2], "num_heads": [2, 2, 2]}
    for settings in ({"patch_size": 0}, {"num_heads": [2, -2]}, {"mlp_ratio": [float("nan")]}):
        with pytest.raises(LibranasError, match=r"no space: space\..*: expected (more than 0|a number)"):
            read([entry], family="pit", **settings)
    with pytest.raises(LibranasError, match=r"no space: space.patch_size: expected more than 0, got 0"):
        read(one_block(), preset="tiny", patch_size=0)


@pytest.mark.parametrize("key", [1, 2.5, None, True, datetime.date(2024, 1, 1)])
def test_keys_that_are_no_text(key):
    with pytest.raises(LibranasError, match=r"the key .* beside a network is no text"):
        read({key: 2, **one_block()})
    with pytest.raises(LibranasError, match=r"is no network"):
        read(one_block(**{"SCORE": {(1, 2): 3}}))
    table, _ = read({"date": datetime.date(2024, 1, 1), **one_block()})
    assert len(table) == 1


@pytest.mark.parametrize(
    "section",
    [
        5,
        {"MLP_RATIO": [3.0], "NUM_HEADS": [-3], "DEPTH": [12], "EMBED_DIM": [192]},
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
    for name, text in (("a.json", "{"), ("b.yaml", "a: ]"), ("c.yaml", b"\xff\xfe\x00"), ("d.yaml", "[" * 5000)):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(LibranasError, match=rf"{name} cannot be read as YAML or JSON"):
            read_file(path)
