"""The sections of a configuration: every key with its type, limits, default and meaning.

Names come from the registries, and the keys of `space`, `score.options` and the recipes from the classes that they
configure, so a new proxy, space, data set, strategy or combiner is known here by its registration.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from math import inf
from typing import Literal

from libranas.core.typed import DEVICE, Key, keys_of, setting
from libranas.data.registry import DATA_SETS
from libranas.predictors.registry import COMBINERS
from libranas.search.registry import STRATEGIES
from libranas.spaces.registry import FAMILIES
from libranas.training.recipe import ShortRecipe, TrainingRecipe
from libranas.zero_cost.options import Options
from libranas.zero_cost.registry import PROXIES

#: Sections only declare their keys: a checked configuration is a dictionary.
section = dataclass(kw_only=True)


@section
class Splits:
    val: float = setting("Share of the training images.", 0.2, above=0, below=1)
    test: float = setting("Share of the training images.", 0.2, above=0, below=1)


@section
class Limit:
    train: int | None = setting("Training images.", None, least=1)
    val: int | None = setting("Validation images.", None, least=1)
    test: int | None = setting("Test images.", None, least=1)


@section
class Data:
    adapter: str = setting("Kind of data set.", choices=DATA_SETS)
    path: str | None = setting("Folder or .tar of images, or the files of a known data set (docs/data-sets.md).", None)
    image_size: int = setting("Pixels a side. Images are resized and cropped to a square.", least=1)
    channels: Literal[1, 3] = setting("1: grey, 3: colour.", 3)
    splits: Splits = setting("Fractions for splits that the data set does not have.")
    limit: Limit | None = setting("At most this many images a split, stratified; for quick runs.", None)
    max_broken: int = setting("Unreadable images that are tolerated.", 0, least=0)
    calibration: int = setting("Images of the batch that proxies see.", 64, least=4)


def space_keys(given: Mapping) -> dict[str, Key]:
    """Return the keys of the section `space` for the family that it names; those of all families if it names none."""
    families = [FAMILIES[given["family"]]] if given.get("family") in FAMILIES else FAMILIES.values()
    kind = {"description": "Kind of networks. The other keys depend on it.", "choices": FAMILIES}
    return {"family": Key(str, MISSING, kind)} | {name: key for family in families for name, key in family.keys.items()}


@section
class Budget:
    params: list[int] | None = setting("[least, most] parameters.", None, length=(2, 2), least=0)
    macs: list[int] | None = setting("[least, most] multiply-accumulates of one image.", None, length=(2, 2), least=0)
    latency: list[float] | None = setting("[least, most] milliseconds of a batch.", None, length=(2, 2), least=0)


@section
class Latency:
    batch: int = setting("Images at a time.", 1, least=1)
    dtype: Literal["float32", "bfloat16", "float16"] = setting("Type of numbers.", "float32")
    threads: int = setting("Threads of PyTorch on a CPU.", 1, least=1)
    warmup: int = setting("Runs of a network that do not count.", 3, least=1)
    repetitions: int = setting("Runs that count; their median is the latency.", 20, least=3)
    held_out: int = setting("Whole networks that the table of blocks is checked with.", 10, least=2)


@section
class Sample:
    count: int = setting("Architectures to score.", least=20)
    shards: int | Literal["auto"] = setting(
        "Jobs that score them; auto: one for 100 to 400 of them.", "auto", least=1, most=100_000
    )


def option_keys(given: Mapping) -> dict[str, Key]:
    """Return the options that all networks of a run can share."""
    return {name: key for name, key in keys_of(Options).items() if name not in ("window", "features")}


@section
class Score:
    proxies: list[str] = setting("Proxies (`libranas proxies`).", choices=PROXIES, length=(3, inf), unique=True)
    seeds: int = setting("Initialisations of each architecture.", 3, least=1)
    readout: int = setting(
        "Training images for `nngp`, at least two of each class; as many as there are if fewer.", 256, least=8
    )
    max_failed: float = setting("Share of networks on which a proxy may be non-finite.", 0.1, least=0, most=1)
    options: Options = setting("Options of scoring.", partial=True, keys=option_keys)


@section
class Layers:
    rule: Literal["spike", "valley", "all", "fixed"] = setting(
        "Bins of depth that count: the run around the highest or the lowest of the curve, all, or `fixed`.", "spike"
    )
    fixed: list[int] | None = setting("First and last bin, for the rule `fixed`.", None, length=(2, 2), least=0)
    bins: int = setting("Bins of depth; at most the blocks of the shallowest network.", 10, least=2)
    exclude: list[Literal["first", "last"]] = setting("Layers left out of the curve.", ("first", "last"))
    psi: Literal["window", "from_first", "all"] = setting(
        "Layers whose patterns count: those of the window, from the first to its end, or all.", "window"
    )


@section
class Repeated:
    count: int = setting("Architectures, the first of the sample.", 0, least=0)
    seeds: int = setting("Trainings of each.", 4, least=2)


@section
class Columns:
    architecture: str = setting("Canonical JSON, or a string of the space's original benchmark.", "architecture")
    accuracy: str = setting("Any number that is higher for a better network.", "accuracy")


@section
class Benchmark:
    method: Literal["train", "supernet", "table"] = setting(
        "Source of accuracies: short trainings, weights inherited from a supernet, or a table."
    )
    count: int = setting("Architectures of the sample that get an accuracy.", 60, least=20)
    seeds: int = setting("Trainings of each (method `train`).", 1, least=1)
    repeated: Repeated = setting("Architectures that are trained more often, to know the noise (method `train`).")
    inherited: int | None = setting("Architectures that inherit from the supernet; null: `count`.", None, least=1)
    recipe: ShortRecipe | None = setting("The short trainings.", None, partial=True)
    supernet: ShortRecipe | None = setting("Training of the supernet.", None, partial=True)
    table: str | None = setting("Table of architectures and accuracies, FILE or FILE:TASK (method `table`).", None)
    columns: Columns = setting("Names of the table's columns; usual ones are found without.")
    paper: str | None = setting("Column of the paper's Table 3 to show in the report, such as NB201-C10.", None)


@section
class Libra:
    mode: Literal["corrected", "literal"] = setting("How LIBRA chooses its three proxies.", "corrected")
    combiner: str = setting("What ranks the candidates of the search.", "blend", choices=COMBINERS)
    calibration: int = setting("Labelled architectures LIBRA may look at.", 30, least=10)
    splits: int = setting("Random splits that judge every method.", 20, least=2)
    window: float = setting("How far below the best proxy's Spearman the others may be.", 0.1, above=0)
    duplicate: float = setting("|Spearman| of two proxies from which one is passed over.", 0.98, above=0, most=1)


@section
class Published:
    tables: str | None = setting(
        "Folder of NAS-Bench-Suite-Zero's tables, SPACE-TASK.csv or zc_SPACE.json; null: none.", None
    )
    scores: str | None = setting(
        "Folder of further scores, SPACE.csv with the column arch, in the working directory or the checkout.", None
    )
    labels: list[int] = setting("Numbers of labels.", (0, 10, 25, 50, 100, 200), length=(1, inf), least=0)
    splits: int = setting("Random choices of the labelled architectures.", 20, least=2)
    methods: list[str] | None = setting("Combiners to judge; null: all.", None, choices=COMBINERS, length=(1, inf))


@section
class Pruning:
    fitness: Literal["libra", "lswag"] = setting("The proxies that LIBRA chose, or L-SWAG alone.", "libra")
    width: int = setting("Channels of the first cell.", 4, least=1)
    layers: int = setting("Cells; one reduces a third and one two thirds of the way.", 3, least=3)
    images: int = setting("Images of the calibration batch; as many as it has if fewer.", 16, least=4)


@section
class Search:
    method: str = setting(
        "Strategy. guided: trains what it proposes; ageing: regularised evolution; nsga2: fronts of fitness against "
        "`objectives`; params: the largest network; pruning: shrinks a supernet of the space darts.",
        "guided",
        choices=STRATEGIES,
    )
    evaluations: int = setting("Architectures each strategy but pruning may score.", least=1)
    labels: int = setting("Networks that guided search trains, as `benchmark.recipe` says.", 40, least=5, most=100_000)
    round: int = setting("Trainings between two looks at the accuracies, in guided search.", 5, least=1)
    long: int = setting(
        "Networks that guided search trains by `train.recipe` too: half the best, half spread over all; 0: none.",
        0,
        least=0,
    )
    population: int = setting("Architectures of a generation; new candidates of a round.", 50, least=2)
    parents: int = setting(
        "Of evolution and guided: the fittest so far. Of ageing: random ones, of which the fittest has a child.",
        10,
        least=1,
    )
    objectives: list[Literal["params", "macs", "latency"]] = setting(
        "What nsga2 minimises while it maximises fitness.", ("params",), length=(1, 3), unique=True
    )
    winner: Literal["fittest", "balanced"] = setting(
        "The fittest of all; or, of the front of nsga2, the one whose worst loss (share of a range) is least.",
        "fittest",
    )
    workers: int = setting("Processes that score a generation; results do not depend on it.", 1, least=1)
    seeds: int = setting("Initialisations a candidate is scored with.", 1, least=1)
    pruning: Pruning = setting("The supernet of the method `pruning`. It is scored 780 times.")


@dataclass(frozen=True)
class RecipeOnBase(TrainingRecipe):
    epochs: int = setting("Passes over the training images; needed without `base`.", None, least=1)
    base: str | None = setting(
        "A shipped recipe (libranas/training/recipes) or a file of one, that the rest changes.", None
    )


@section
class Train:
    seeds: int = setting("Trainings of the winner and of each control.", 3, least=3, most=1000)
    reference: str | None = setting("File of `libranas networks` with one network to train beside the winner.", None)
    licence: str | None = setting("Licence of the trained weights, for the model card; null: not stated.", None)
    recipe: RecipeOnBase = setting("The training.", partial=True)


@section
class FullTraining:
    recipe: str = setting("Recipe of `libranas train`: a shipped name or a file.")
    data: str = setting("Its images, such as imagenet:/data/imagenet (docs/data-sets.md).")
    nodes: int = setting("Machines; several need SLURM.", 1, least=1)
    processes: int = setting("Processes on each of them, one a GPU.", 1, least=1)
    threads: int = setting("CPU cores of each machine.", 8, least=1)
    options: list[str | int | float] = setting("Further options of `libranas train`, such as --compile.", ())


@section
class Config:
    run: str = setting(
        "Name of the experiment; a folder below `results`.",
        pattern=("[A-Za-z0-9][A-Za-z0-9_.-]*", "a name of letters, digits, '.', '_' and '-'"),
    )
    results: str = setting("Folder of all results.", "results")
    seed: int = setting("Master seed of every random stream.", least=0)
    device: str = setting(
        "Where networks run; `auto` takes a GPU if there is one.",
        "auto",
        **DEVICE,
    )
    data: Data = setting("The images.")
    space: dict = setting("The search space.", keys=space_keys, partial=True)
    budget: Budget = setting("Windows for sampling, search and controls; null: no limit.")
    latency: Latency = setting("How latency is measured, on `device`. Let nothing else run there.")
    sample: Sample = setting("The architectures that are scored.")
    score: Score = setting("The zero-cost proxies.")
    layers: Layers = setting("The layer window of L-SWAG.")
    benchmark: Benchmark = setting("The accuracies that LIBRA learns from (docs/running.md).")
    libra: Libra = setting("The choice of proxies, and what it is compared with.")
    published: Published = setting("Judge the combiners on published tables too (docs/published-benchmarks.md).")
    search: Search | None = setting(
        "null: no search and no training; the workflow ends with the comparison of proxies."
    )
    train: Train | None = setting("null: nothing is trained; the workflow ends with the search.")
    full_training: FullTraining | None = setting(
        "A large training of the winner, `snakemake full_training` (docs/cluster.md); null: none.", None
    )
