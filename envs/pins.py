"""The one list of pins, requirements.lock, for a role: what images install, and the environments for conda.

python envs/pins.py cpu       prints the requirements of the role
python envs/pins.py --write   writes envs/cpu.yaml and envs/cuda.yaml; a test says when that is due
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Where PyTorch's builds without CUDA are: under the same versions as on PyPI, with the suffix +cpu.
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYTHON = "3.12"  # that of the images

CONDA = """\
# Written by envs/pins.py from requirements.lock; do not edit.
#   conda env create -f envs/{role}.yaml && conda activate libranas-{role} && pip install --no-deps -e .
# Conda brings Python; the pinned packages are pip's, so that all ways of installing give the same ones.
name: libranas-{role}
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python={python}
  - pip
  - pip:
{lines}
"""


def requirements(role: str) -> list[str]:
    """Lines for pip. The role cpu leaves out what only the CUDA build of PyTorch needs."""
    lines = (HERE.parent / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    if role == "cuda":
        return pins
    return [f"--extra-index-url {CPU_INDEX}", *(p for p in pins if not re.match(r"(nvidia|cuda)-|triton==", p))]


def conda(role: str) -> str:
    lines = "\n".join(f'      - "{line}"' for line in requirements(role))
    return CONDA.format(role=role, python=PYTHON, lines=lines)


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        for role in ("cpu", "cuda"):
            (HERE / f"{role}.yaml").write_text(conda(role), encoding="utf-8")
    else:
        print("\n".join(requirements(sys.argv[1])))
