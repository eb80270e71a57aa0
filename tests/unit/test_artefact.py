"""Files of fitted predictors: equal values to the bit, and no file that is anything else is read."""

import json
import pickle

import numpy as np
import pytest
from test_combiners import known_and_rest

from libranas.core.errors import LibranasError
from libranas.predictors import artefact
from libranas.predictors.base import Combiner, Predictor
from libranas.predictors.registry import COMBINERS


class Constant:
    """The predictor of another package."""

    def __call__(self, sample):
        return np.ones(len(sample))


@pytest.mark.parametrize("name", sorted(COMBINERS))
def test_a_predictor_that_was_read_gives_the_same_values(name, tmp_path):
    known, rest, _ = known_and_rest(count=12)
    predictor = COMBINERS[name].fit(known, 3)
    artefact.write(tmp_path / "predictor", predictor)
    again = artefact.read(tmp_path / "predictor")
    assert again.proxies == predictor.proxies
    for sample in (rest, rest.take([5])):
        np.testing.assert_array_equal(again(sample), predictor(sample))
    if name in ("gp", "lightgbm"):  # a fit that is repeated makes an equal file
        artefact.write(tmp_path / "repeated", COMBINERS[name].fit(known, 3))
        assert (tmp_path / "repeated").read_bytes() == (tmp_path / "predictor").read_bytes()


def changed(header: dict, content: bytes, **values) -> bytes:
    return json.dumps({**header, **values}).encode() + b"\n" + content


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda header, content: b"", "not a file of a fitted predictor"),
        (lambda header, content: b"\x80\x05 a pickle", "not a file of a fitted predictor"),
        (lambda header, content: changed(header, content, format="libranas scores"), "not a file of a fitted"),
        (lambda header, content: changed(header, content, version=2), "version 2 of its format; .* reads version 1"),
        (lambda header, content: changed(header, content[:-1]), "damaged"),
        (lambda header, content: changed(header, content, libraries={"numpy": "1.0"}), r"written with numpy 1\.0"),
        (lambda header, content: None, "does not exist.*\n.*stage libra"),
    ],
)
def test_a_file_that_cannot_be_read_is_explained(spoil, message, tmp_path):
    path = tmp_path / "predictor"
    artefact.write(path, COMBINERS["params"].fit(known_and_rest()[0], 0))
    first, _, content = path.read_bytes().partition(b"\n")
    path.unlink()
    if (spoilt := spoil(json.loads(first), content)) is not None:
        path.write_bytes(spoilt)
    with pytest.raises(LibranasError, match=message):
        artefact.read(path)


def test_a_file_makes_no_other_objects(tmp_path):
    artefact.write(tmp_path / "predictor", Predictor((), pickle.loads))
    with pytest.raises(LibranasError, match=r"names _pickle\.loads"):
        artefact.read(tmp_path / "predictor")


def test_predictors_of_a_registered_combiner_of_another_package_are_read(tmp_path):
    artefact.write(tmp_path / "predictor", Predictor((), Constant()))
    with pytest.raises(LibranasError, match="Constant"):
        artefact.read(tmp_path / "predictor")
    COMBINERS.add(Combiner("constant", "a constant", lambda known, seed: Predictor((), Constant())))
    try:
        rest = known_and_rest()[1]
        assert artefact.read(tmp_path / "predictor")(rest).sum() == len(rest)
    finally:
        COMBINERS.remove("constant")
