"""What processes load. The times themselves are measured by benchmarks/start_up.py."""

import json
import shutil
import subprocess
import sys

import yaml
from conftest import ENVIRONMENT, ROOT, TINY

from libranas.config.checks import checked

HEAVY = {"torch", "timm", "torchvision", "pandas", "numpy", "sklearn", "lightgbm", "matplotlib"}


def loaded(code: str, *arguments: str, after: str = "import sys; print(*sys.modules)") -> set[str]:
    command = [sys.executable, "-c", f"{code}\n{after}", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_the_package_and_its_help_load_no_library():
    assert not HEAVY & loaded("import libranas, libranas.zero_cost, libranas.networks.load") - {"numpy"}
    code = "from libranas.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not HEAVY & loaded(code)


def test_the_configuration_is_checked_without_torch():
    code = "import yaml; from libranas.config.checks import checked; checked(yaml.safe_load(open('config.yaml')))"
    assert not {"torch", "timm", "sklearn", "lightgbm", "matplotlib"} & loaded(code)


def test_a_scoring_job_loads_what_scoring_needs_and_no_more(copied):
    shutil.rmtree(copied.results / "state/score")
    config = checked(yaml.safe_load((ROOT / "config.yaml").read_text()) | yaml.safe_load(TINY.read_text()))
    code = (
        "import json, sys; from libranas.runs.folder import RunFolder; from libranas.runs.stages.scores import score\n"
        "score(RunFolder(sys.argv[1], json.loads(sys.argv[2])), 0)"
    )
    modules = loaded(code, str(copied.results), json.dumps(config))
    assert "torch" in modules
    unwanted = {"timm", "torchvision", "torch._dynamo", "matplotlib", "lightgbm", "sklearn", "snakemake"}
    assert not unwanted & modules
