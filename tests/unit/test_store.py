"""The score file: what is written is what is read, and a damaged file is never half-read."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libranas import scores as store
from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.scorecard import Axis, PassCost, ProxyScore, ScoreCard
from libranas.scores.nodes import encode

FOLDER = tempfile.TemporaryDirectory()
FIXTURE = Path(__file__).resolve().parents[1] / "data" / "scores-v1.h5"
NAN, INF = float("nan"), float("inf")
PROVENANCE = {"libranas": "0.1.0", "conditions": {"calibration": "0123abcd", "device": "cpu"}}
AXES = {"zico": {"per_layer": ["layer"]}, "psi": {"union": ["activation", "activation"], "fill": []}}
INFO = {
    "zico": {"version": 2, "orientation": 1, "pass": "data", "equation": "Eq. 1", "component_axes": AXES["zico"]},
    "loss": {"version": 1, "orientation": -1, "pass": "noise", "equation": "", "component_axes": {}},
    "psi": {"version": 1, "orientation": 1, "pass": "data", "equation": "Eq. 7", "component_axes": AXES["psi"]},
}


def arch(k: int, blocks: int) -> Arch:
    return Arch("toy", {"k": k, "blocks": blocks})


def card(a: Arch, seed: int, value: float | None = None) -> ScoreCard:
    """A score card whose numbers all come from the architecture and the seed."""
    rng = np.random.default_rng([a["k"], seed])
    L, M = 2 + 2 * a["blocks"], a["blocks"]
    axes = {
        "layer": Axis(tuple(f"layer{i}" for i in range(L)), tuple(i / L for i in range(L))),
        "activation": Axis(tuple(f"act{i}" for i in range(M)), tuple((1 + 2 * i) / L for i in range(M))),
    }
    drawn = rng.normal()
    loss = drawn if value is None else value
    scores = {
        "zico": ProxyScore(rng.normal(), "", {"per_layer": rng.normal(size=L)}, "data", rng.random()),
        "psi": ProxyScore(rng.normal(), "", {"union": rng.normal(size=(M, M)), "fill": rng.random()}, "data", 0.5),
        "loss": ProxyScore(loss, "" if np.isfinite(loss) else "overflow", {}, "noise", 0.25),
    }
    passes = {"data": PassCost(0.5), "noise/eval": PassCost(0.25, 1024.0)}
    return ScoreCard(scores, axes, passes, ("cls_token",), (f"{M} blocks",))


def collected(archs, seeds=(0, 1), values=None, provenance=PROVENANCE, info=INFO) -> store.Scores:
    values = values or {}
    cards = {(a.id, s): card(a, s, values.get((a["k"], s))) for a in archs for s in seeds}
    sizes = [1000 + a["k"] for a in archs], [2000 + a["k"] for a in archs]
    return store.collect(archs, *sizes, seeds, cards, info, provenance)


def same(a: store.Scores, b: store.Scores) -> bool:
    """Equal in everything, costs and provenance included."""

    def flat(scores):
        def bits(value):
            return value is not None and (value.dtype, value.shape, value.tobytes())

        return {path: (node.attrs, bits(node.value)) for path, node in encode(scores).items()}

    return flat(a) == flat(b)


ARCHS = [arch(k, blocks) for k, blocks in enumerate([2, 1, 3, 1])]
FLOATS = st.floats(width=64)  # NaN, infinities, signed zeros and subnormal numbers included


# ------------------------------------------------------------------------------------------- round trip


@given(
    blocks=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    values=st.lists(FLOATS, min_size=12, max_size=12),
    note=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
)
def test_what_is_written_is_read_back_bit_for_bit(tmp_path_factory, blocks, seeds, values, note):
    archs = [arch(k, b) for k, b in enumerate(blocks)]
    given_values = {(k, s): values[3 * k + j] for k in range(len(blocks)) for j, s in enumerate(seeds)}
    scores = collected(archs, seeds, given_values, {"note": note, "nested": [1, {"x": 0.1}]})
    scores = replace(scores, warnings=(note, "second"))
    path = tmp_path_factory.mktemp("store") / "scores.h5"
    store.write(path, scores)
    again = store.read(path)
    assert same(scores, again)
    assert again.archs == tuple(archs) and again.seeds == tuple(seeds)
    assert again.axes == scores.axes
    assert again.provenance == scores.provenance
    assert again.warnings == (note, "second")
    for (k, s), value in given_values.items():
        stored = again.proxies["loss"].value_AS[k, seeds.index(s)]
        assert stored.tobytes() == np.float64(value if value == value else NAN).tobytes()
        assert bool(again.proxies["loss"].reason_AS[k, seeds.index(s)]) == (not np.isfinite(value))


def test_collect_puts_every_number_in_its_place():
    scores = collected(ARCHS, seeds=(3, 5))
    assert scores.params_A.tolist() == [1000, 1001, 1002, 1003]
    assert list(scores.proxies) == ["loss", "psi", "zico"]
    zico, psi = scores.proxies["zico"], scores.proxies["psi"]
    assert zico.components["per_layer"].values.shape == (4, 2, 8)
    assert psi.components["union"].values.shape == (4, 2, 3, 3)
    for a, architecture in enumerate(ARCHS):
        L, M = 2 + 2 * architecture["blocks"], architecture["blocks"]
        for s, seed in enumerate((3, 5)):
            expected = card(architecture, seed)
            assert zico.value_AS[a, s] == expected["zico"]
            assert zico.seconds_AS[a, s] == expected.scores["zico"].seconds
            layers = zico.components["per_layer"].values[a, s]
            np.testing.assert_array_equal(layers[:L], expected.scores["zico"].components["per_layer"])
            assert np.isnan(layers[L:]).all()
            union = psi.components["union"].values[a, s]
            np.testing.assert_array_equal(union[:M, :M], expected.scores["psi"].components["union"])
            assert np.isnan(union[M:]).all() and np.isnan(union[:, M:]).all()
            assert psi.components["fill"].values[a, s] == expected.scores["psi"].components["fill"]
            assert scores.passes["noise/eval"].peak_bytes_AS[a, s] == 1024
            assert np.isnan(scores.passes["data"].peak_bytes_AS[a, s])
        assert scores.axes["layer"][a] == expected.axes["layer"]
    assert scores.excluded == ("cls_token",)
    assert scores.warnings == ("1 blocks", "2 blocks", "3 blocks")


def test_collect_names_what_is_missing():
    cards = {(a.id, s): card(a, s) for a in ARCHS for s in (0, 1)}
    del cards[ARCHS[2].id, 1].scores["psi"]
    with pytest.raises(LibranasError, match=rf"{ARCHS[2].id} has no score by psi with seed 1"):
        store.collect(ARCHS, range(4), range(4), (0, 1), cards, INFO, {})
    with pytest.raises(LibranasError, match=rf"{ARCHS[0].id} .*loss, psi with seed 2"):
        store.collect(ARCHS, range(4), range(4), (0, 2), cards, INFO, {})


@pytest.mark.parametrize("component, expected", [("per_layer", "shape"), ("unheard_of", "declare")])
def test_collect_refuses_components_that_are_not_as_declared(component, expected):
    wrong = card(ARCHS[0], 0)
    wrong.scores["zico"].components[component] = np.zeros(5)
    with pytest.raises(ValueError, match=expected):
        store.collect(ARCHS[:1], [1], [1], [0], {(ARCHS[0].id, 0): wrong}, INFO, {})


def test_collect_refuses_seeds_that_disagree_about_an_axis():
    cards = {(ARCHS[0].id, 0): card(ARCHS[0], 0), (ARCHS[0].id, 1): card(ARCHS[1], 1)}
    with pytest.raises(ValueError, match="its seeds disagree about the axis 'activation'"):
        store.collect(ARCHS[:1], [1], [1], [0, 1], cards, INFO, {})


def test_a_card_completed_later_keeps_the_larger_cost_of_a_pass():
    """A pass that is run again for one more proxy alone says little about what it costs with all of them."""
    axes = card(ARCHS[0], 0).axes
    first = ScoreCard({"zico": ProxyScore(1.0, seconds=3.0)}, axes, {"data": PassCost(3.0, 50.0), "a": PassCost(1.0)})
    added = {"data": PassCost(2.0, 70.0), "a": PassCost(0.5, 9.0), "noise": PassCost(4.0)}
    merged = first.merged(ScoreCard({"psi": ProxyScore(2.0, seconds=2.0)}, axes, added))
    assert {name: score.seconds for name, score in merged.scores.items()} == {"zico": 3.0, "psi": 2.0}
    assert merged.passes.keys() == {"data", "a", "noise"}
    assert (merged.passes["data"], merged.passes["a"]) == (PassCost(3.0, 70.0), PassCost(1.0, 9.0))
    assert merged.passes["noise"].seconds == 4.0


def test_a_failed_proxy_needs_no_components_but_gets_a_reason():
    failed = card(ARCHS[0], 0)
    failed.scores["zico"] = ProxyScore(NAN)
    scores = store.collect(ARCHS[:1], [1], [1], [0], {(ARCHS[0].id, 0): failed}, INFO, {})
    assert scores.proxies["zico"].reason_AS[0, 0] == "the proxy returned nan"
    assert np.isnan(scores.proxies["zico"].components["per_layer"].values).all()


# --------------------------------------------------------------------------------------------- the file


def test_the_kept_file_of_version_1_is_still_read():
    scores = store.read(FIXTURE)
    assert [a["depth"] for a in scores.archs] == [1, 2]
    assert scores.params_A.tolist() == [1000, 2500] and scores.macs_A.tolist() == [50_000, 90_000]
    assert scores.seeds == (0, 1)
    assert list(scores.proxies) == ["loss", "lswag_lambda", "lswag_psi"]
    np.testing.assert_array_equal(scores.proxies["lswag_lambda"].value_AS, [[46.0, 46.5], [135.0, 135.75]])
    np.testing.assert_array_equal(scores.proxies["loss"].value_AS, [[2.3, 3.3], [2.3, NAN]])
    assert scores.proxies["loss"].reason_AS.tolist() == [["", ""], ["", "loss is NaN: Größe"]]
    psi = scores.proxies["lswag_psi"]
    assert (psi.version, psi.orientation, psi.pass_name, psi.equation) == (3, 1, "gradients", "Eq. 7")
    assert scores.proxies["loss"].orientation == -1
    np.testing.assert_array_equal(psi.components["union"].values[1, 0], [[8, 16], [NAN, 8]])
    assert psi.components["union"].axes == ("activation", "activation")
    assert scores.axes["layer"][0].names == ("patch_embed", "blocks.0.fc1", "blocks.0.fc2", "head")
    assert scores.axes["activation"][1].depth == (1 / 6, 1 / 2)
    assert scores.passes["gradients"].peak_bytes_AS.tolist() == [[2**20, 2**20]] * 2
    assert scores.provenance == {"libranas": "0.1.0", "conditions": {"precision": "fp32", "calibration": "0123abcd"}}
    assert scores.excluded == ("cls_token", "pos_embed") and scores.warnings == ("one loss is NaN",)
    # A change of what is hashed makes every file in the world look damaged.
    assert store.content_sha256(scores) == "a72981ebb081306787474b2722a881cb2b181481353d50af1d1fde3a9397ec57"


def test_equal_scores_give_equal_bytes_and_costs_do_not_enter_the_hash(tmp_path):
    scores = collected(ARCHS)
    for name in "ab":
        store.write(tmp_path / name, collected(ARCHS))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    slower = {k: replace(t, seconds_AS=t.seconds_AS * 2) for k, t in scores.proxies.items()}
    elsewhere = replace(scores, proxies=slower, passes={}, provenance={"cpu": "another"})
    assert store.content_sha256(elsewhere) == store.content_sha256(scores)
    changed = replace(scores, params_A=scores.params_A + 1)
    assert store.content_sha256(changed) != store.content_sha256(scores)


def test_a_nan_is_a_nan_however_the_processor_writes_it():
    negative = np.array([0xFFF8000000000001], np.uint64).view(np.float64)[0]
    a, b = collected(ARCHS, values={(1, 0): NAN}), collected(ARCHS, values={(1, 0): negative})
    assert store.content_sha256(a) == store.content_sha256(b)


def test_a_file_is_readable_with_plain_h5py_and_every_element_is_stamped(tmp_path):
    store.write(tmp_path / "s.h5", collected(ARCHS))
    with h5py.File(tmp_path / "s.h5") as f:
        assert f.attrs["format"] == b"libranas-scores" and f.attrs["version"] == 1 and f.attrs["complete"] == 1
        assert f["archs/id"].asstr()[1] == ARCHS[1].id
        k = f["axes/layer/index"][1]
        start = f["axes/layer/start"][k : k + 2]
        assert f["axes/layer/names"].asstr()[start[0] : start[1]].tolist() == [f"layer{i}" for i in range(4)]
        unstamped, unchecked = [], []

        def look(name, element):
            if not {"type", "type_version"} <= set(element.attrs):
                unstamped.append(name)
            if isinstance(element, h5py.Dataset) and element.size and not element.fletcher32:
                unchecked.append(name)

        f.visititems(look)
        assert unstamped == [] and unchecked == []


def test_the_example_in_the_specification_runs(tmp_path, monkeypatch):
    text = (Path(__file__).resolve().parents[2] / "docs" / "store-format.md").read_text(encoding="utf-8")
    shutil.copy(FIXTURE, tmp_path / "scores.h5")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    expected = store.read(FIXTURE)
    assert found["ids"].tolist() == [a.id for a in expected.archs]
    assert tuple(found["names"]) == expected.axes["layer"][0].names
    np.testing.assert_array_equal(found["score"], expected.proxies["lswag_lambda"].value_AS)
    np.testing.assert_array_equal(found["per_layer"], expected.proxies["lswag_lambda"].components["lambda"].values)


def test_the_hash_is_the_one_that_the_specification_describes():
    sha = hashlib.sha256()
    with h5py.File(FIXTURE) as f:
        paths = []
        f.visit(paths.append)
        for path in sorted(paths):
            if path.startswith(("passes", "provenance")) or path.endswith("/seconds"):
                continue
            attrs = {k: v.decode() if isinstance(v, bytes) else int(v) for k, v in f[path].attrs.items()}
            value = f[path][()] if isinstance(f[path], h5py.Dataset) else None
            about = [path, attrs] if value is None else [path, attrs, value.dtype.str, value.shape]
            sha.update((json.dumps(about, sort_keys=True) + "\n").encode())
            sha.update(b"" if value is None else value.tobytes("C"))
        assert f.attrs["content_sha256"] == sha.hexdigest().encode()


def test_large_arrays_are_compressed(tmp_path):
    archs = [arch(k, 3) for k in range(40)]
    store.write(tmp_path / "s.h5", collected(archs))
    with h5py.File(tmp_path / "s.h5") as f:
        assert f["proxies/zico/components/per_layer"].compression == "gzip"
    assert same(store.read(tmp_path / "s.h5"), collected(archs))


def test_the_precision_of_a_proxy_is_an_attribute_that_old_files_lack(tmp_path):
    known = collected(ARCHS, info=changed_info("psi", precision="float64"))
    store.write(tmp_path / "s.h5", known)
    with h5py.File(tmp_path / "s.h5") as f:
        assert f["proxies/psi"].attrs["precision"] == b"float64" and "precision" not in f["proxies/zico"].attrs
    again = store.read(tmp_path / "s.h5")
    assert same(again, known)
    assert [(name, table.precision) for name, table in again.proxies.items() if table.precision] == [("psi", "float64")]
    assert store.read(FIXTURE).proxies["loss"].precision == ""
    assert store.content_sha256(known) != store.content_sha256(collected(ARCHS))


# ------------------------------------------------------------------------------------------ damaged files


def assert_refused(path: Path, *words: str):
    with pytest.raises(LibranasError) as caught:
        store.read(path)
    message = str(caught.value)
    assert str(path) in message and "run the same command again" in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, *np.linspace(0.05, 0.95, 19), 0.999, 1.0])
def test_a_truncated_file_is_refused(tmp_path, share):
    raw = FIXTURE.read_bytes()
    (tmp_path / "s.h5").write_bytes(raw[: min(int(share * len(raw)), len(raw) - 1)])
    assert_refused(tmp_path / "s.h5", "truncated, damaged" if share < 1 else "")


def test_a_flipped_bit_is_refused_or_harmless(tmp_path):
    """Every 41st byte of the file, one bit each: an error, or (unused bytes) exactly the same scores."""
    raw, expected, path = FIXTURE.read_bytes(), store.read(FIXTURE), tmp_path / "s.h5"
    refused = 0
    for position in range(0, len(raw), 41):
        damaged = bytearray(raw)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert same(store.read(path), expected), f"byte {position}"
        except LibranasError:
            refused += 1
    assert refused > 0.5 * len(raw) / 41


def test_text_never_goes_to_the_heap_that_has_no_checksum():
    """A damaged byte in HDF5's heap of variable-length text can make it loop without end."""
    assert b"GCOL" not in FIXTURE.read_bytes()


@pytest.mark.parametrize("dataset", ["archs/json", "proxies/loss/value", "provenance", "passes/seconds", "reasons"])
def test_a_changed_number_or_text_is_detected(tmp_path, dataset):
    """The checksum of each data set catches a change of its stored bytes, costs and provenance included."""
    with h5py.File(FIXTURE) as f:
        offset = f[dataset].id.get_chunk_info(0).byte_offset
    damaged = bytearray(FIXTURE.read_bytes())
    damaged[offset] ^= 4
    (tmp_path / "s.h5").write_bytes(damaged)
    assert_refused(tmp_path / "s.h5", "truncated, damaged")


def rewritten(tmp_path, change) -> Path:
    path = tmp_path / "s.h5"
    shutil.copy(FIXTURE, path)
    with h5py.File(path, "r+") as f:
        change(f)
    return path


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda f: f["proxies/loss/value"].__setitem__((0, 0), 2.4), ["does not match its hash"]),
        (lambda f: f["proxies/loss"].attrs.modify("orientation", 1), ["does not match its hash"]),
        (lambda f: f.attrs.modify("version", 2), ["version 2", "Update libranas"]),
        (lambda f: f["axes/layer"].attrs.modify("type_version", 7), ["'axis' version 7", "Update libranas"]),
        (lambda f: f.attrs.modify("complete", 0), ["not written to its end"]),
    ],
    ids=["value", "orientation", "newer file", "newer element", "incomplete"],
)
def test_a_file_that_was_edited_or_is_newer_is_refused(tmp_path, change, words):
    assert_refused(rewritten(tmp_path, change), *words)


def test_foreign_files_are_refused(tmp_path):
    with h5py.File(tmp_path / "foreign.h5", "w") as f:
        f["x"] = 1
        f.attrs["format"] = "anndata"
    assert_refused(tmp_path / "foreign.h5", "not one of 'libranas-scores'")
    (tmp_path / "text.h5").write_text("id,score\n")
    assert_refused(tmp_path / "text.h5", "truncated, damaged or not a file of scores")
    with pytest.raises(LibranasError, match=r"missing\.h5 does not exist"):
        store.read(tmp_path / "missing.h5")
    with pytest.raises(LibranasError, match=r"Cannot read .*: Is a directory\."):
        store.read(tmp_path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.h5"
    store.write(path, collected(ARCHS[:1]))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LibranasError, match="No space left"):
        store.write(path, collected(ARCHS))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["s.h5"]


# -------------------------------------------------------------------------------------------- merging


def merged(parts, wanted=None) -> store.Scores:
    """What the files of `parts` are merged into; reading it verifies its hash."""
    folder = Path(tempfile.mkdtemp(dir=FOLDER.name))
    paths = [folder / f"{name}.h5" for name in ("one", "two", "three", "four")[: len(parts)]]
    for path, part in zip(paths, parts, strict=True):
        store.write(path, part)
    store.merge(folder / "merged.h5", paths, wanted)
    return store.read(folder / "merged.h5")


@given(cuts=st.lists(st.integers(0, 4), min_size=2, max_size=2).map(sorted), order=st.permutations(range(4)))
def test_shards_merged_in_any_cut_and_order_equal_one_run(cuts, order):
    values = {(0, 1): NAN, (3, 0): INF}
    i, j = cuts
    archs = [ARCHS[k] for k in order]
    shards = [collected(part, values=values) for part in (archs[:i], archs[i:j], archs[j:])]
    whole = collected(archs, values=values)
    joined = merged(shards, {arch.id for arch in ARCHS})
    assert same(replace(joined, provenance={}, passes={}), replace(whole, provenance={}, passes={}))
    for name, table in whole.passes.items():
        np.testing.assert_array_equal(joined.passes[name].seconds_AS, table.seconds_AS)
        np.testing.assert_array_equal(joined.passes[name].peak_bytes_AS, table.peak_bytes_AS)
    assert joined.provenance["conditions"] == PROVENANCE["conditions"]
    assert joined.provenance["parts"] == [{"libranas": "0.1.0"}] * 3


def test_parts_that_saw_other_passes_reasons_and_axes_are_merged():
    """As in memory: what a part does not know is not measured there, and the longest network sets the width."""
    values = {(0, 0): NAN}
    first, second = collected(ARCHS[:1], values=values), collected(ARCHS[1:])
    first = replace(first, passes={"noise": first.passes["data"]}, excluded=("a",), warnings=("odd",))
    joined = merged([first, second])
    assert joined.excluded == tuple(sorted({"a", *second.excluded})) and "odd" in joined.warnings
    assert (
        np.isnan(joined.passes["noise"].seconds_AS[1:]).all() and np.isnan(joined.passes["data"].seconds_AS[:1]).all()
    )
    assert joined.proxies["loss"].reason_AS[0, 0] != "" and (joined.proxies["loss"].reason_AS[1:] == "").all()
    assert joined.archs == tuple(ARCHS)


def test_a_damaged_part_is_named_and_nothing_is_written(tmp_path):
    for name, archs in (("one.h5", ARCHS[:2]), ("two.h5", ARCHS[2:])):
        store.write(tmp_path / name, collected(archs))
    raw = bytearray((tmp_path / "two.h5").read_bytes())
    raw[len(raw) // 2] ^= 255
    (tmp_path / "two.h5").write_bytes(raw)
    with pytest.raises(LibranasError, match=r"two\.h5"):
        store.merge(tmp_path / "merged.h5", [tmp_path / "one.h5", tmp_path / "two.h5"])
    assert sorted(os.listdir(tmp_path)) == ["one.h5", "two.h5"]


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    store.write(tmp_path / "one.h5", collected(ARCHS))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(LibranasError, match="No space left"):
        store.merge(tmp_path / "merged.h5", [tmp_path / "one.h5"])
    assert os.listdir(tmp_path) == ["one.h5"]


# --------------------------------------------------------------------------------------------- in parts


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_are_the_file_cut(tmp_path, rows):
    whole = collected(ARCHS, values={(0, 1): NAN, (3, 0): INF})
    store.write(tmp_path / "s.h5", whole)
    blocks = store.Blocks(tmp_path / "s.h5", rows=rows)
    assert blocks.length == len(ARCHS)
    assert [arch for block in blocks for arch in block.archs] == ARCHS
    for function in (store.frame, store.costs, store.nonfinite, partial(store.check_failures, allowed=1)):
        pd.testing.assert_frame_equal(function(blocks), function(whole))
    assert store.frame(blocks).attrs == store.frame(whole).attrs
    for block in store.Blocks(tmp_path / "s.h5", components=(), rows=rows):
        assert not any(table.components for table in block.proxies.values())
        assert list(block.proxies) == ["loss", "psi", "zico"]
    for block, start in zip(blocks, range(0, len(ARCHS), rows), strict=True):
        for key, component in block.proxies["zico"].components.items():
            expected = whole.proxies["zico"].components[key].values[start : start + rows]
            np.testing.assert_array_equal(component.values, expected)


def test_blocks_of_an_empty_and_of_a_damaged_file(tmp_path):
    store.write(tmp_path / "empty.h5", collected([]))
    (block,) = store.Blocks(tmp_path / "empty.h5")
    assert block.archs == ()
    path = rewritten(tmp_path, lambda f: f.attrs.modify("content_sha256", np.bytes_("0" * 64)))
    with pytest.raises(LibranasError, match="does not match its hash"):
        store.Blocks(path)


def test_one_column_is_that_of_the_frame(tmp_path):
    whole = collected(ARCHS, values={(0, 1): NAN, (3, 0): INF})
    store.write(tmp_path / "s.h5", whole)
    for name in ("loss", "zico"):
        pd.testing.assert_series_equal(store.column(tmp_path / "s.h5", name), store.frame(whole)[name])
    with pytest.raises(LibranasError, match=r"has no proxy snip.\n  -> It has loss, psi, zico"):
        store.column(tmp_path / "s.h5", "snip")


def test_an_empty_shard_is_written_read_and_merged(tmp_path):
    store.write(tmp_path / "empty.h5", collected([]))
    empty = store.read(tmp_path / "empty.h5")
    assert empty.archs == () and empty.seeds == (0, 1) and list(empty.proxies) == ["loss", "psi", "zico"]
    elsewhere = collected([], info=changed_info("zico", **{"pass": ""}))  # nothing ran: the pass is not known
    for nothing in (empty, elsewhere):
        for order in ([nothing, collected(ARCHS)], [collected(ARCHS[:2]), nothing, collected(ARCHS[2:])]):
            assert store.content_sha256(merged(order)) == store.content_sha256(collected(ARCHS))


def test_merging_twice_keeps_a_flat_list_of_facts():
    a, b, c = (collected([x]) for x in ARCHS[:3])
    assert merged([merged([a, b]), c]).provenance == merged([a, b, c]).provenance


def changed_info(proxy: str, **changes) -> dict:
    return {**INFO, proxy: {**INFO[proxy], **changes}}


@pytest.mark.parametrize(
    "other, words",
    [
        (lambda: collected(ARCHS[1:], seeds=(0, 2)), "the seeds: (0, 1) in one.h5 but (0, 2) in two.h5"),
        (lambda: collected(ARCHS[1:], info=changed_info("zico", version=3)), "version of zico: 2 in one.h5 but 3"),
        (lambda: collected(ARCHS[1:], info=changed_info("loss", orientation=1)), "orientation of loss: -1"),
        (lambda: collected(ARCHS[1:], info=changed_info("loss", precision="float64")), "precision of loss:  in one.h5"),
        (
            lambda: collected(ARCHS[1:], info={k: v for k, v in INFO.items() if k != "psi"}),
            "the proxies: loss, psi, zico in one.h5 but loss, zico in two.h5",
        ),
        (
            lambda: collected(ARCHS[1:], provenance={"conditions": {"calibration": "0123abcd", "device": "cuda"}}),
            "condition 'device': \"cpu\" in one.h5 but \"cuda\" in two.h5",
        ),
        (lambda: collected(ARCHS[1:], provenance={}), "condition 'calibration': \"0123abcd\" in one.h5 but None"),
        (lambda: collected(ARCHS), f"Architecture {ARCHS[0].id} is in one.h5 and in two.h5"),
    ],
)  # fmt: skip
def test_shards_that_do_not_belong_together_are_named(other, words):
    with pytest.raises(LibranasError) as caught:
        merged([collected(ARCHS[:1]), other()])
    assert words in re.sub(r"\S*/(one|two)\.h5", r"\1.h5", str(caught.value))


def test_exactly_the_wanted_architectures_must_be_there():
    with pytest.raises(LibranasError, match=f"lack 1 of the 2 wanted .*{ARCHS[3].id}.* hold 1 .*{ARCHS[1].id}"):
        merged([collected(ARCHS[:2])], [ARCHS[0].id, ARCHS[3].id])
    with pytest.raises(LibranasError, match="no scores to merge"):
        store.merge("merged.h5", [])


# --------------------------------------------------------------------------------------- differences, frames


def test_every_difference_changes_the_hash():
    a = collected(ARCHS)
    barely = np.nextafter(a.proxies["loss"].value_AS[0, 0], INF)
    others = (
        collected(ARCHS, values={(0, 0): barely}),
        collected(ARCHS, info=changed_info("zico", version=9)),
        collected(ARCHS[:3]),
        replace(a, proxies={k: v for k, v in a.proxies.items() if k != "psi"}),
    )
    assert len({store.content_sha256(scores) for scores in (a, *others)}) == 5


def test_the_frame_is_the_oriented_mean_over_finite_seeds():
    values = {(0, 0): 1.0, (0, 1): 2.0, (1, 0): NAN, (1, 1): 4.0, (2, 0): INF, (2, 1): INF, (3, 0): NAN, (3, 1): INF}
    scores = collected(ARCHS, values=values)
    frame = store.frame(scores)
    assert list(frame.columns) == ["params", "macs", "loss", "psi", "zico"] and frame.index.name == "id"
    assert list(frame.index) == [a.id for a in ARCHS]
    np.testing.assert_array_equal(frame["loss"], [-1.5, -4.0, -INF, NAN])
    np.testing.assert_array_equal(frame["zico"], scores.proxies["zico"].value_AS.sum(1) / 2)
    assert frame.attrs["ignored_seeds"] == {"loss": 1, "psi": 0, "zico": 0}
    assert set(frame.dtypes) == {np.dtype("f8")}


def test_costs_are_medians_of_the_pass_of_each_proxy():
    scores = collected(ARCHS, info=changed_info("loss", **{"pass": "noise/eval"}))
    seconds_AS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 600.0], [7.0, NAN]])  # median 4: NaN was not measured
    passes = {
        "data": store.PassTable(seconds_AS, np.full((4, 2), NAN)),
        "noise/eval": store.PassTable(seconds_AS / 2, 10 * np.nan_to_num(seconds_AS, nan=0.0)),
        "left over": store.PassTable(seconds_AS, seconds_AS),  # of a proxy that is no longer asked for
    }
    rows = [("loss", "noise/eval", 2.0, 35.0, 1), ("psi", "data", 4.0, NAN, 2), ("zico", "data", 4.0, NAN, 2)]
    expected = pd.DataFrame(rows, columns=["proxy", "pass", "seconds", "peak_bytes", "shared"])
    pd.testing.assert_frame_equal(store.costs(replace(scores, passes=passes)), expected)


def test_costs_that_were_not_measured_are_nan():
    for scores in (replace(collected(ARCHS), passes={}), collected([])):
        table = store.costs(scores)
        assert list(table["proxy"]) == ["loss", "psi", "zico"] and list(table["shared"]) == [1, 2, 2]
        assert table[["seconds", "peak_bytes"]].isna().all(axis=None)


def test_values_that_are_not_finite_are_counted_by_reason():
    scores = collected(ARCHS, values={(0, 0): NAN, (1, 1): INF, (2, 0): -INF})
    assert store.nonfinite(scores).to_dict("records") == [{"proxy": "loss", "reason": "overflow", "count": 3}]
    assert len(store.nonfinite(collected(ARCHS))) == 0
