"""Fixtures shared by all tests."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference data that live beside the checkout and are no part of the product."""
    path = Path(os.environ.get("LIBRANAS_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(
            f"REFERENCE DATA ABSENT: {path.name}/ is not beside the checkout (or in $LIBRANAS_SHARED); "
            "golden values and real data are not checked in this run"
        )
    return path
