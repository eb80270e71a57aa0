"""Check a configuration: each key by itself, then keys that must fit together."""

import re
from collections.abc import Iterator

from libranas.config.schema import Config
from libranas.core.errors import LibranasError
from libranas.core.shards import shards_for
from libranas.core.typed import BadSetting, keys_of, read
from libranas.data.registry import DATA_SETS
from libranas.search.registry import STRATEGIES
from libranas.spaces.registry import FAMILIES
from libranas.training.recipe import make_recipe

ON_TOP = "A file that is to lie on top of another preset needs that one named before it"


def checked(config: dict) -> dict:
    """Return `config` with all defaults; LibranasError lists all problems, each with its key."""
    try:
        config = read(keys_of(Config), config | own_keys(config.get("space")))
        problems = _misfits(config)
    except BadSetting as error:
        problems = error.what.splitlines()
    if problems:
        raise LibranasError(
            "The configuration is not usable:\n" + "\n".join(f"  * {p}" for p in problems),
            "Correct config.yaml, the --configfile or the --config option; config/schema.yaml lists every key.",
        )
    if config["sample"]["shards"] == "auto":
        config["sample"]["shards"] = shards_for(config["sample"]["count"])
    if config["train"] and config["train"]["recipe"].get("base"):
        # by its values, so that a changed file is a changed configuration
        config["train"]["recipe"] = make_recipe(config["train"]["recipe"]).to_dict()
    return config


def latency_needed(config: dict) -> bool:
    """Say whether something is limited or judged by latency."""
    return bool(config["budget"]["latency"]) or "latency" in _objectives(config["search"])


def _objectives(search: dict | None) -> list[str]:
    """Return the objectives that the search minimises beside its fitness."""
    return search["objectives"] if search and STRATEGIES[search["method"]].needs_objectives else []


def own_keys(space) -> dict:
    """The section `space` without keys of other families: a preset inherits the choices of config.yaml."""
    if not isinstance(space, dict) or space.get("family") not in FAMILIES:
        return {"space": space} if space is not None else {}
    others = {key for name, family in FAMILIES.items() if name != space["family"] for key in family.keys}
    others -= set(FAMILIES[space["family"]].keys)
    return {"space": {key: value for key, value in space.items() if key not in others}}


def _misfits(config: dict) -> list[str]:
    """Keys that are right by themselves and wrong together."""
    return [*_labels(config), *_images(config), *_scores(config), *_search(config), *_trainings(config)]


def _labels(config: dict) -> Iterator[str]:
    bench, sample, calibration = config["benchmark"], config["sample"]["count"], config["libra"]["calibration"]
    method, family = bench["method"], config["space"]["family"]
    section = {"train": "recipe", "supernet": "supernet", "table": "table"}[method]
    if bench[section] is None:
        yield f"benchmark.{section}: needed for benchmark.method {method}"
    if method != "table":
        if bench["count"] > sample:
            yield f"benchmark.count: {bench['count']} architectures of a sample of {sample} (sample.count)"
        if (bench["inherited"] or 0) > sample:
            yield f"benchmark.inherited: {bench['inherited']} architectures of a sample of {sample}"
        if bench["count"] < calibration + 10:
            yield (
                f"libra.calibration: {calibration} of {bench['count']} architectures (benchmark.count) leave fewer "
                "than 10 to judge by"
            )
    if method == "supernet" and not FAMILIES[family].weight_sharing:
        sharing = ", ".join(name for name, family in FAMILIES.items() if family.weight_sharing)
        yield f"benchmark.method: only networks of the space {sharing} share their weights in a supernet"


def _images(config: dict) -> Iterator[str]:
    data, space = config["data"], config["space"]
    adapter, preset, image_size = data["adapter"], space.get("preset"), data["image_size"]
    if DATA_SETS[adapter].needs_path and not data["path"]:
        yield f"data.path: needed for data.adapter {adapter}"
    own = {key for key, value in space.items() if value is not None} - {"family", "preset"}
    if adapter != "digits" and str(preset).startswith("digits") and not own:
        yield (
            f"space.preset: {preset} is for images of 8 x 8, not for data.adapter {adapter}; name another preset, or "
            f"choices. {ON_TOP}"
        )
    size = re.fullmatch(r"(?:image|small-)(\d+)(-patch\d+)?", str(preset))
    if adapter == "digits" and size and int(size[1]) != image_size:
        yield (
            f"space.preset: {preset} is for images of {size[1]} x {size[1]}, not for data.adapter digits with "
            f"data.image_size {image_size}. {ON_TOP}"
        )


def _scores(config: dict) -> Iterator[str]:
    if config["layers"]["rule"] == "fixed" and config["layers"]["fixed"] is None:
        yield "layers.fixed: needed for layers.rule fixed"
    for name in {"lswag_lambda", "lswag_psi"} - set(config["score"]["proxies"]):
        yield f"score.proxies: {name} is missing; the layer window is read from it"
    for name, window in config["budget"].items():
        if window and window[0] > window[1]:
            yield f"budget.{name}: {window} has its least above its most"
    if latency_needed(config) and not FAMILIES[config["space"]["family"]].latency_parts:
        having = " and ".join(name for name, family in FAMILIES.items() if family.latency_parts)
        key = "budget.latency" if config["budget"]["latency"] else "search.objectives"
        yield f"{key}: latencies are looked up for space.family {having} only; leave latency out"


def _search(config: dict) -> Iterator[str]:
    search, family = config["search"], config["space"]["family"]
    if search is None:
        return
    if search["parents"] > search["population"]:
        yield "search.parents: more than search.population"
    if STRATEGIES[search["method"]].trains and config["benchmark"]["recipe"] is None:
        yield f"benchmark.recipe: search.method {search['method']} trains networks by it; state it"
    if search["winner"] == "balanced" and not _objectives(search):
        having = " or ".join(name for name, strategy in STRATEGIES.items() if strategy.needs_objectives)
        yield f"search.winner: balanced is a choice from the front of search.method {having}"
    if search["method"] == "pruning":
        if family != "darts":
            yield f"search.method: pruning is for space.family darts, not for {family}"
        for name, window in config["budget"].items():
            if window:
                yield f"budget.{name}: search.method pruning keeps to no budget; set it to null"


def _trainings(config: dict) -> Iterator[str]:
    train, full = config["train"], config["full_training"]
    if train and not config["search"]:
        yield "train: there is nothing to train without a search; set it to null too"
    if train and not {"epochs", "base"} & set(train["recipe"]):
        yield "train.recipe: 'epochs' is missing"
    if full and not train:
        yield "full_training: needs train, which chooses and exports the winner; set it to null too"
    if full and "--seeds" in (str(option).partition("=")[0] for option in full["options"]):
        yield "full_training.options: it is one training; several seeds are several runs, by `--seed`"
