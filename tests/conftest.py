"""Fixtures shared by all tests."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("local", max_examples=10, deadline=None)
settings.register_profile("ci", max_examples=40, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


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
