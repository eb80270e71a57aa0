"""Images are built and the tiny experiment runs in them, without network: the same scores as outside, value for value.

The base is Debian made by mmdebstrap and the packages come from a folder of wheels, so that no registry is asked. What
the images are built from in production, bases of Docker Hub and PyTorch's builds without CUDA, is not reached here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import slurm_on_loopback
from conftest import ENVIRONMENT, ROOT, TINY
from test_kill_and_resume import same_bytes, same_scores

pytestmark = pytest.mark.cluster
BASE = ["mmdebstrap", "--variant=minbase", "--include=python3-venv,libgomp1", "bookworm"]
PINS = [sys.executable, str(ROOT / "envs/pins.py"), "cuda"]


def needed(setting: str, *tools: str) -> None:
    """End the test where tools are missing: with an error where the environment requires them, else with a skip."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    if not missing and os.geteuid() == 0:
        return
    why = f"{', '.join(missing)} not found: apt-get install buildah mmdebstrap" if missing else "needs root"
    if os.environ.get(setting) == "required":
        pytest.fail(why)
    pytest.skip(f"NO IMAGE IS BUILT in this run: {why}")


def run(*command, patience: float = 3600, **options) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience,
        **options,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def parts():
    """What images are made of: ``base.tar`` and the folder ``wheels``; 3.3 GB."""
    needed("LIBRANAS_CONTAINERS", "buildah", "mmdebstrap")
    folder = Path(tempfile.mkdtemp(prefix="libranas-image-"))
    run(*BASE, folder / "base.tar")
    (folder / "pins.txt").write_text(run(*PINS))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder / "wheels"]
    run(*pip, "--requirement", folder / "pins.txt")
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Buildah:
    """buildah with a store of its own."""

    folder: Path

    def __call__(self, *arguments, wrapper: tuple = (), **options) -> str:
        store = ["--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "overlay"]
        return run(
            *wrapper, "buildah", *store, *arguments, env=ENVIRONMENT | {"BUILDAH_ISOLATION": "chroot"}, **options
        )


@pytest.fixture(scope="module")
def image(parts):
    """A working container of the image, and buildah."""
    buildah = Buildah(parts)
    (parts / "Base").write_text("FROM scratch\nADD base.tar /\n")
    buildah("bud", "--quiet", "--layers=false", "--tag", "localhost/base", "--file", parts / "Base", parts)
    recipe = ["--file", ROOT / "containers/cuda.Containerfile", "--ignorefile", ROOT / ".containerignore"]
    given = ["--build-arg", "BASE=localhost/base", "--volume", f"{parts}/wheels:/wheels:ro"]
    buildah("bud", "--quiet", "--layers=false", "--tag", "localhost/libranas", *recipe, *given, ROOT)
    yield buildah, buildah("from", "localhost/libranas").strip()
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")


def test_the_image_gives_the_same_scores_without_network(image, finished, tmp_path):
    buildah, container = image
    shutil.copy(TINY, tmp_path / "tiny.yaml")
    tmp_path.chmod(0o777)
    output = buildah(
        *("run", "--user", "1000:1000", "--volume", f"{tmp_path}:/work", "--env", "OMP_NUM_THREADS=1", container, "--"),
        *("snakemake", "--snakefile", "/libranas/Snakefile", "--cores", "2", "--configfile", "/work/tiny.yaml"),
        wrapper=("unshare", "--net"),
    )
    results = tmp_path / "results/tiny"
    assert (results / "report.html").exists(), output
    assert results.joinpath("scores/scores.h5").stat().st_uid == 1000
    assert same_scores(results / "scores/scores.h5", finished.results / "scores/scores.h5")
    for name in ("libra/proxies.csv", "search/evolution.csv", "search/random.csv"):
        assert same_bytes(results / name, finished.results / name), name


@pytest.fixture(scope="module")
def sif(parts):
    """The same image for Apptainer; it takes ten minutes and is built where it is asked for."""
    if os.environ.get("LIBRANAS_APPTAINER") != "required":
        pytest.skip("APPTAINER IS NOT TESTED in this run; LIBRANAS_APPTAINER=required does it, see docs/containers.md")
    needed("LIBRANAS_APPTAINER", "apptainer")
    (base := parts / "base").mkdir()
    run("tar", "--extract", "--file", parts / "base.tar", "--directory", base, "--exclude", "./dev/*")
    (base / "wheels").mkdir()
    given = ["--build-arg", "BOOTSTRAP=localimage", "--build-arg", f"BASE={base}", "--bind", f"{parts}/wheels:/wheels"]
    quick = ["--mksquashfs-args", "-comp zstd -Xcompression-level 1"]
    run("apptainer", "build", *quick, *given, parts / "libranas.sif", "containers/cuda.def", cwd=ROOT)
    return parts / "libranas.sif"


@pytest.fixture
def with_sif(sif, fresh) -> list[str]:
    """Options of Snakemake that run every job in the image; in a folder that has it where the workflow looks for it."""
    (fresh.folder / "containers").mkdir()
    (fresh.folder / "containers/libranas.sif").symlink_to(sif)
    # root here lacks some capabilities that Apptainer would pass on
    return ["--software-deployment-method", "apptainer", "--apptainer-args= --no-privs"]


def test_apptainer_runs_the_workflow_with_the_same_scores(with_sif, fresh, finished):
    target = "results/tiny/libra/proxies.csv"
    output = fresh.succeed(target, *with_sif, forked=False)
    assert "Activating singularity image" in output or "Activating apptainer image" in output
    assert same_scores(fresh.results / "scores/scores.h5", finished.results / "scores/scores.h5")
    assert same_bytes(fresh.folder / target, finished.folder / target)


def test_apptainer_runs_the_jobs_of_slurm(with_sif, fresh, finished):
    if why := slurm_on_loopback.missing():
        pytest.fail(why)
    slurm = slurm_on_loopback.start()
    try:
        run(
            *(sys.executable, "-m", "snakemake", "results/tiny/scores/scores.h5", "--directory", fresh.folder),
            *("--configfile", TINY, "--profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "15"),
            *with_sif,
            cwd=ROOT,
            env=slurm.environment,
        )
        assert {job["state"] for job in slurm.jobs().values()} == {"COMPLETED"}
        assert len(slurm.jobs()) == 3  # prepare and two shards
    finally:
        slurm_on_loopback.stop(slurm)
    assert same_scores(fresh.results / "scores/scores.h5", finished.results / "scores/scores.h5")
