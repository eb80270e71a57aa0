"""Random streams, hashes and the facts of a run."""

import getpass
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libranas.core import provenance
from libranas.core.provenance import STAGE_VERSIONS, digest, facts, file_sha256, stage_version
from libranas.core.random import stream_seed

ROOT = Path(__file__).resolve().parents[2]


def test_streams_are_the_same_everywhere_and_for_ever():
    assert stream_seed(1, "init", "abc", 2) == 1863788114987688371
    code = "from libranas.core.random import stream_seed; print(stream_seed(1, 'init', 'abc', 2))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(out.stdout) == stream_seed(1, "init", "abc", 2)


@given(st.integers(0, 2**70), st.lists(st.text() | st.integers(), max_size=4))
def test_a_seed_suits_every_generator(master, names):
    seed = stream_seed(master, *names)
    assert 0 <= seed < 2**63
    np.random.default_rng(seed)


def test_streams_differ_by_every_part_of_their_name():
    calls = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", "b"), (0, "b", "a"), (0,)]
    assert len({stream_seed(*c) for c in calls}) == len(calls)
    draws = np.array([np.random.default_rng(stream_seed(0, "x", i)).random(200) for i in range(20)])
    assert np.abs(np.corrcoef(draws) - np.eye(20)).max() < 0.35


def test_digests():
    assert digest(1, "a", (2.5, None)) == digest(1, "a", (2.5, None))
    assert len({digest(1), digest("1"), digest(1.0), digest((1,)), digest(1, 1)}) == 5
    assert len(digest()) == 16 and int(digest(), 16) >= 0


def test_the_hash_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 10**5)
    assert file_sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 10**5).hexdigest()


def test_stage_versions():
    assert all(isinstance(v, int) and v >= 1 for v in STAGE_VERSIONS.values())
    assert stage_version("score") == f"score {STAGE_VERSIONS['score']}"
    with pytest.raises(KeyError):
        stage_version("cook")


def test_facts_are_plain_complete_and_about_no_person():
    found = facts()
    assert json.loads(json.dumps(found)) == found
    assert {
        "libranas",
        "commit",
        "uncommitted_changes",
        "python",
        "packages",
        "system",
        "cpu",
        "cores",
        "gpu",
        "time",
    } == set(found)
    assert found["packages"]["numpy"] == np.__version__ and found["cores"] >= 1
    text = json.dumps(found)
    assert str(Path.home()) not in text and str(ROOT) not in text
    if len(user := getpass.getuser()) > 4:
        assert user not in text


def test_facts_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = facts()
    assert found["commit"] is None and found["uncommitted_changes"] is False


def test_gpus_are_not_looked_for_where_torch_is_not_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert provenance._gpu_names() == []
    assert "torch" not in sys.modules
