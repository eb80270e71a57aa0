"""Files of the user: what counts as a change of them."""

import os
import shutil

import pytest

from libranas.core.errors import LibranasError
from libranas.runs import inputs
from libranas.runs.inputs import state_of


@pytest.mark.parametrize("most", [0, 10**6])
def test_the_state_changes_with_the_files_and_with_nothing_else(tmp_path, monkeypatch, most):
    monkeypatch.setattr(inputs, "MOST_BYTES", most)  # by sizes and times, or by content
    root = tmp_path / "images"
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        os.utime(root / name, ns=(0, 0))
    first = state_of(root)
    (root / "empty").mkdir()
    (root / ".DS_Store").write_text("hidden")
    os.utime(root / "a")
    assert state_of(root) == first == state_of(shutil.copytree(root, tmp_path / "copy"))

    def moved():
        (root / "a/1.jpg").rename(root / "b/1.jpg")

    def added():
        (root / "a/2.jpg").write_text("2")

    def linked():
        (root / "a/3.jpg").symlink_to("gone")

    def deleted():
        (root / "b/0.jpg").unlink()

    def rewritten():
        (root / "a/0.jpg").write_text("0.jpg")

    seen = [first]
    for change in (moved, added, linked, deleted, rewritten):
        change()
        assert state_of(root) not in seen, change.__name__
        seen.append(state_of(root))
    before = state_of(file := root / "a/0.jpg")
    os.utime(file)
    assert (state_of(file) == before) == (most > 0)
    assert state_of(None) is None and state_of("") is None and state_of(tmp_path / "nothing") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    (tmp_path / "a").mkdir(mode=0)
    with pytest.raises(LibranasError, match="Cannot list"):
        state_of(tmp_path)
