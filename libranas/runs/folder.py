"""The folder of a run: its files, and what the stages read from them."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from libranas.core.arch import Arch
from libranas.core.files import read_json
from libranas.core.provenance import digest, stage_version
from libranas.labels.table import mean_accuracies
from libranas.latency.table import LatencyTable
from libranas.predictors import artefact
from libranas.predictors.base import Predictor, Sample
from libranas.runs.files import FILES
from libranas.spaces import Budget, Space, make_space
from libranas.zero_cost.lswag import LayerWindow

#: Stage to what its kept progress depends on: versions of libraries, and whether the data set and the space count.
KEYS = {"benchmark": (("torch", "timm"), True), "search": ((), False), "train": ((), True)}


class RunFolder:
    """A run: the folder with its files, each read once, and the configuration. Imports torch only where it is needed.

    Parameters
    ----------
    config : the checked configuration, or those of its sections that are used
    timed : whether networks have a latency by the run's table; by default as the configuration says
    """

    def __init__(self, path: str | Path, config: Mapping, timed: bool | None = None):
        self.folder = Path(path)
        self.config = config
        self._timed = timed

    def path(self, name: str, **which) -> Path:
        """Return the path of a file of :data:`FILES`; `which` fills in the braces."""
        return self.folder / FILES[name].format(**which)

    def state(self, name: str) -> Path:
        """Return where progress is kept: never a declared output, because Snakemake deletes those before a rerun."""
        return self.folder / "state" / name

    def key(self, stage: str, *depends) -> str:
        """Return a name for everything that kept progress depends on; progress under another key is not used.

        Parameters
        ----------
        stage : one of :data:`KEYS`; its version counts
        depends : the settings of the work, with a stable ``repr``
        """
        libraries, of_data = KEYS[stage]
        data = (self.manifest["content_sha256"], self.space) if of_data else ()
        return digest(stage_version(stage), *map(version, libraries), *data, *depends)

    @cached_property
    def manifest(self) -> dict:
        return read_json(self.path("manifest"))

    @cached_property
    def space(self) -> Space:
        """The search space, for the images of the manifest."""
        found = self.manifest
        return make_space(self.config["space"], found["image_size"], found["channels"], len(found["classes"]))

    @cached_property
    def budget(self) -> Budget:
        """The budget, with the table of latencies where networks have one."""
        if (timed := self._timed) is None:
            from libranas.config.checks import latency_needed

            timed = latency_needed(self.config)
        return Budget.from_settings(self.config["budget"], LatencyTable.read(self.path("latency")) if timed else None)

    @cached_property
    def device(self) -> str:
        from libranas.networks.device import pick_device

        return pick_device(self.config["device"])

    def archs(self, shard: int | None = None, count: int | None = None, ids: pd.Index | None = None) -> list[Arch]:
        """Return the sample's architectures: those among the first `count` that belong to `shard` and are in `ids`."""
        columns, found = ["id", "shard", "architecture"], []
        with pd.read_csv(
            self.path("archs"), usecols=columns, dtype={"id": str}, nrows=count, chunksize=100_000
        ) as tables:
            for table in tables:  # the sample may be too large to be held by every job
                table = table if shard is None else table[table["shard"] == shard]
                table = table if ids is None else table[table["id"].isin(ids)]
                found += map(Arch.from_json, table["architecture"])
        return found

    @property
    def ids(self) -> pd.Series:
        """Ids of the sample's architectures, in the order of the draw."""
        return pd.read_csv(self.path("archs"), usecols=["id"], dtype=str)["id"]

    def splits(self, *names: str) -> tuple:
        """Return splits of the prepared images as :class:`libranas.training.images.ImageSet`."""
        from libranas.data.reading import load_split
        from libranas.training.images import ImageSet

        return tuple(ImageSet.from_arrays(*load_split(self.path("images"), name), self.manifest) for name in names)

    def scorer(self):
        """Return the :class:`libranas.zero_cost.scorer.Scorer` of the run's calibration batch, on its device."""
        import torch

        from libranas.data.calibration import readout_images
        from libranas.data.reading import load_calibration
        from libranas.zero_cost.scorer import Readout, Scorer

        batch = (torch.from_numpy(a).to(self.device) for a in load_calibration(self.path("calibration")))
        sha256, settings, seed = self.manifest["calibration"]["sha256"], self.config["score"], self.config["seed"]
        load = partial(readout_images, self.path("images"), self.manifest, settings["readout"], seed)
        readout = Readout(f"{settings['readout']} of {self.manifest['content_sha256']}", load)
        return Scorer(self.space, *batch, sha256, seed, settings["options"], self.device, readout)

    @cached_property
    def window(self) -> LayerWindow:
        """The layer window that the stage layers chose."""
        return LayerWindow(**read_json(self.path("window"))["window"])

    @cached_property
    def sample(self) -> Sample:
        """Scores, sizes and features of the sample."""
        return self.sample_of(self.archs())

    def sample_of(self, archs: Sequence[Arch]) -> Sample:
        """Return scores, sizes and features of architectures of the sample, in the order of the draw."""
        table, by_id = pd.read_csv(self.path("table"), index_col="id"), {arch.id: arch for arch in archs}
        table = table.loc[table.index.isin(by_id), sorted(self.config["score"]["proxies"])]
        return Sample.of(table, self.space, [by_id[i] for i in table.index])

    @cached_property
    def accuracies(self) -> pd.Series:
        """Mean accuracy of each labelled architecture, by id."""
        return mean_accuracies(self.path("accuracy", method=self.config["benchmark"]["method"]))

    @cached_property
    def predictor(self) -> Predictor:
        """The fitted combiner that the stage libra judged."""
        return artefact.read(self.path("combiner"))

    def fitness(self, predictor: Predictor | None = None):
        """Return the :class:`libranas.search.fitness.Fitness` of a fitted combiner, by default the judged one."""
        from libranas.search.fitness import Fitness

        seeds, psi = self.config["search"]["seeds"], self.config["layers"]["psi"]
        return Fitness(self.scorer(), predictor or self.predictor, seeds, self.window, psi)
