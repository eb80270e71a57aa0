"""What a user can get wrong or run into: one message that says what, where and what to do; nothing half-written."""

import os
import re
import subprocess

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from libranas import scores as store

MANIFEST, ARCHS = "results/tiny/data/manifest.json", "results/tiny/sample/archs.csv"
SHARD, SCORES = "results/tiny/scores/shards/1.h5", "results/tiny/scores/scores.h5"


def complaint(run: Run, target: str, changes: dict | None = None) -> str:
    """The one message of a run that fails; its last line says what to do. What was asked for is not there."""
    output = run.fail(target, changes=changes)
    messages = re.findall(r"^.*\n(?:.*\n){0,10}?  -> .*$", output, re.MULTILINE)
    assert len(messages) == 1 and output.count("  -> ") == 1, output
    assert not (run.folder / target).exists()
    return messages[0]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"serach": {"evaluations": 60}}, "serach: unknown key; did you mean search?"),
        ({"search": {"evaluation": 60}}, "search.evaluation: unknown key; did you mean search.evaluations?"),
        ({"sample": {"count": "many"}}, "sample.count: expected a whole number, got 'many'"),
    ],
    ids=["section", "key", "type"],
)
def test_a_wrong_configuration(fresh, changes, sentence):
    message = complaint(fresh, MANIFEST, changes)
    assert sentence in message and "config/schema.yaml lists every key" in message
    assert not (fresh.folder / "results").exists()


def test_a_target_that_names_nothing(fresh):
    message = complaint(fresh, "results/tiny/scores/shards/99.h5")
    assert "No stage of this run makes results/tiny/scores/shards/99.h5" in message
    assert "shard: 0, 1;" in message


def test_a_space_that_cannot_be_is_refused_before_the_images_are_prepared(fresh):
    message = complaint(fresh, MANIFEST, {"space": {"patch_size": 3}})
    assert "space.patch_size 3 does not divide data.image_size 8" in message
    assert not (fresh.folder / "results").exists()


def test_a_target_that_needs_a_section(fresh):
    message = complaint(fresh, "full_training")
    assert "There is no full_training in this run" in message and "Set `full_training` in the config" in message


def test_missing_data(fresh):
    message = complaint(fresh, MANIFEST, {"data": {"adapter": "folder", "path": "no/such/folder"}})
    assert "data.path 'no/such/folder' does not exist" in message and "train/CLASS/*.jpg" in message


def test_an_image_that_is_none(fresh):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (fresh.folder / "images" / name).mkdir(parents=True)
        for k in range(12):
            pixels = rng.integers(0, 256, (9, 9), np.uint8)
            Image.fromarray(pixels).save(fresh.folder / f"images/{name}/{k}.png")
    (fresh.folder / "images/cat/letter.jpg").write_text("Dear reader,\n")
    settings = {"adapter": "folder", "path": str(fresh.folder / "images"), "calibration": 8, "limit": None}
    message = complaint(fresh, MANIFEST, {"data": settings})
    assert "1 broken image(s), data.max_broken allows 0" in message
    assert "cat/letter.jpg: not an image file" in message and "raise `data.max_broken`" in message
    assert list(fresh.results.glob("data/*")) == []


def test_a_budget_that_no_network_meets(fresh):
    message = complaint(fresh, ARCHS, {"budget": {"params": [1, 2]}})
    assert re.search(r"budget.params \[1, 2\] is infeasible: this space reaches \d{4} to \d{5} params", message)


def test_a_truncated_score_file(copied):
    shard, whole = copied.folder / SHARD, copied.folder / SCORES
    before, times = store.read(whole), shard.stat()
    os.truncate(shard, times.st_size // 2)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    whole.unlink()
    message = complaint(copied, SCORES)
    assert f"{SHARD} is truncated, damaged or not a file of scores" in message
    assert f"Delete {SHARD} and run the same command again" in message
    shard.unlink()
    copied.succeed(SCORES)
    assert store.content_sha256(store.read(whole)) == store.content_sha256(before)


def test_scores_that_are_not_numbers(fresh):
    """Initial weights of 1e20 overflow in every network."""
    changes = {"space": {"init_std": 1e20}, "sample": {"count": 30, "shards": 1}}
    message = complaint(fresh, SCORES, changes)
    assert re.search(r"Proxy \w+ is not finite for 60 of 60 networks: .* not finite", message)
    assert "score.max_failed" in message


@pytest.fixture
def small_disk(fresh):
    """A run whose results lie on a disk of 3 MiB; yields a function that leaves so many bytes free."""
    results = fresh.folder / "results"
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(results)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"FULL DISK NOT TESTED: mounting a tmpfs needs root ({done.stderr.strip()})")

    def leave(free: int) -> None:
        filler = results / "filler"
        filler.unlink(missing_ok=True)
        available = os.statvfs(results)
        filler.write_bytes(bytes(available.f_bavail * available.f_frsize - free))

    yield leave
    subprocess.run(["umount", str(results)], check=True)


def test_a_full_disk(fresh, small_disk, finished):
    small_disk(0)
    assert "No space left on the disk while writing results/tiny/state" in complaint(fresh, MANIFEST)
    small_disk(200_000)
    assert "No space left on the disk of results/tiny/data" in complaint(fresh, MANIFEST)
    small_disk(2_000_000)
    fresh.succeed(ARCHS)
    small_disk(120_000)  # enough to begin with
    message = complaint(fresh, SHARD)
    assert "No space left on the disk while writing results/tiny/state/score/1.jsonl" in message
    assert "run the same command again: nothing was half-written, finished work is kept" in message
    log = fresh.results / "state/score/1.jsonl"
    kept = log.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert kept
    (fresh.results.parent / "filler").unlink()
    fresh.succeed(SHARD)
    assert log.read_bytes().startswith(kept)
    ours, undisturbed = (store.read(run.folder / SHARD) for run in (fresh, finished))
    assert store.content_sha256(ours) == store.content_sha256(undisturbed)
