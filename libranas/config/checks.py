"""Checks a configuration against its schema and fills in the defaults.

The schema (``config/schema.yaml``) is the one place that says which keys exist. What it cannot express,
how two keys must fit together, is checked here.
"""

import copy
import difflib
import re
from pathlib import Path

import jsonschema
import yaml

from libranas.core.errors import LibranasError
from libranas.core.shards import shards_for

ON_TOP = "A file that is to lie on top of another preset needs that one named before it"


def checked(config: dict, schema_path: str | Path) -> dict:
    """`config` with all defaults, or a LibranasError that lists every problem with its key.

    Parameters
    ----------
    config : dict
        As read from the YAML files and the command line.
    """
    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    config = copy.deepcopy(config)
    _fill(config, schema, schema)
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(config), key=lambda e: list(map(str, e.path)))
    problems = [_sentence(e) for e in errors] or _misfits(config)
    if problems:
        raise LibranasError(
            "The configuration is not usable:\n" + "\n".join(f"  * {p}" for p in problems),
            "Correct config.yaml, the --configfile or the --config option; config/schema.yaml lists every key.",
        )
    if config["sample"]["shards"] == "auto":
        config["sample"]["shards"] = shards_for(config["sample"]["count"])
    config["space"] = _of_family(config["space"], schema["properties"]["space"]["properties"])
    return config


def latency_needed(config: dict) -> bool:
    """Whether something is limited or judged by latency."""
    search = config["search"] or {}
    return bool(config["budget"]["latency"]) or (search.get("method") == "nsga2" and "latency" in search["objectives"])


def _of_family(space: dict, properties: dict) -> dict:
    """`space` without the keys of other families: a preset lies on top of config.yaml, whose choices it inherits."""
    family = space["family"]
    return {key: v for key, v in space.items() if family in properties[key].get("of", [family])}


def _resolved(schema: dict, root: dict) -> dict:
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], **schema}
    return schema


def _fill(value: dict, schema: dict, root: dict) -> None:
    for key, sub in schema.get("properties", {}).items():
        sub = _resolved(sub, root)
        if key not in value and "default" in sub:
            value[key] = copy.deepcopy(sub["default"])
        if key in value:
            value[key] = _typed(value[key], sub, root)
        if isinstance(value.get(key), dict):
            _fill(value[key], sub, root)


def _typed(value, schema: dict, root: dict):
    """A number, true, false or null that came as text, where the schema wants no text.

    Snakemake hands over values nested in ``--config`` as text, and YAML reads ``1e-3`` as text.
    """
    schema = _resolved(schema, root)
    if "anyOf" in schema:
        readings = [_typed(value, alternative, root) for alternative in schema["anyOf"]]
        return next((reading for reading in readings if not isinstance(reading, str)), value)
    if isinstance(value, list):
        return [_typed(v, schema.get("items", {}), root) for v in value]
    kinds = schema.get("type") or ["string" if isinstance(v, str) else "other" for v in schema.get("enum", ["text"])]
    if not isinstance(value, str) or "string" in ([kinds] if isinstance(kinds, str) else kinds):
        return value
    try:
        return (
            float(value) if "e" in value.lower() and value.lower() not in ("true", "false") else yaml.safe_load(value)
        )
    except (ValueError, yaml.YAMLError):
        return value


_KINDS = {
    "object": "a section",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def _sentence(error: jsonschema.ValidationError) -> str:
    """One problem in words: key, what was found, what was expected."""
    key = ".".join(map(str, error.absolute_path)) or "the top level"
    rule, found, wanted = error.validator, error.instance, error.validator_value
    if rule == "additionalProperties":
        known = sorted(error.schema.get("properties", {}))
        prefix = "" if key == "the top level" else f"{key}."
        sentences = []
        for name in sorted(set(found) - set(known)):
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {prefix}{close[0]}?" if close else f"known keys: {', '.join(known)}"
            sentences.append(f"{prefix}{name}: unknown key; {hint}")
        return "; ".join(sentences)
    if rule == "required":
        return f"{key}: {error.message.replace(' is a required property', '')} is missing"
    if rule == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        return f"{key}: expected {' or '.join(_KINDS[k] for k in kinds)}, got {found!r}"
    if rule == "enum":
        return f"{key}: expected one of {', '.join('null' if w is None else str(w) for w in wanted)}, got {found!r}"
    if rule == "anyOf":
        kinds = [", ".join(map(str, s["enum"])) if "enum" in s else _KINDS[s["type"]] for s in wanted]
        return f"{key}: expected {' or '.join(kinds)}, got {found!r}"
    limits = {
        "minimum": "at least",
        "maximum": "at most",
        "exclusiveMinimum": "more than",
        "exclusiveMaximum": "less than",
        "minItems": "a list of at least",
        "maxItems": "a list of at most",
    }
    if rule in limits:
        return f"{key}: expected {limits[rule]} {wanted}, got {found!r}"
    return f"{key}: {error.message}"


def _misfits(config: dict) -> list[str]:
    """Keys that are right by themselves and wrong together."""
    problems = []
    bench, libra, sample = config["benchmark"], config["libra"], config["sample"]
    method = bench["method"]
    if method in ("train", "supernet"):
        section = {"train": "recipe", "supernet": "supernet"}[method]
        if bench[section] is None:
            problems.append(f"benchmark.{section}: needed for benchmark.method {method}")
        if bench["count"] > sample["count"]:
            problems.append(
                f"benchmark.count: {bench['count']} architectures of a sample of {sample['count']} (sample.count)"
            )
        if (bench["inherited"] or 0) > sample["count"]:
            problems.append(f"benchmark.inherited: {bench['inherited']} architectures of a sample of {sample['count']}")
        if bench["count"] < libra["calibration"] + 10:
            problems.append(
                f"libra.calibration: {libra['calibration']} of {bench['count']} architectures (benchmark.count) leave "
                "fewer than 10 to judge by"
            )
    elif bench["table"] is None:
        problems.append("benchmark.table: needed for benchmark.method table")
    if method == "supernet" and config["space"]["family"] != "autoformer":
        problems.append("benchmark.method: only networks of the space autoformer share their weights in a supernet")
    adapter, space = config["data"]["adapter"], config["space"]
    if adapter != "digits" and not config["data"]["path"]:
        problems.append(f"data.path: needed for data.adapter {adapter}")
    own = {key for key, value in space.items() if value is not None} - {"family", "preset"}
    if adapter != "digits" and space["family"] == "autoformer" and space.get("preset") == "digits" and not own:
        problems.append(
            f"space.preset: digits is for images of 8 x 8, not for data.adapter {adapter}; name another preset, or "
            f"choices. {ON_TOP}"
        )
    size = re.fullmatch(r"image(\d+)-patch\d+", str(space.get("preset")))
    if (
        adapter == "digits"
        and space["family"] == "autoformer"
        and size
        and int(size[1]) != config["data"]["image_size"]
    ):
        problems.append(
            f"space.preset: {space['preset']} is for images of {size[1]} x {size[1]}, not for data.adapter digits with "
            f"data.image_size {config['data']['image_size']}. {ON_TOP}"
        )
    if config["layers"]["rule"] == "fixed" and config["layers"]["fixed"] is None:
        problems.append("layers.fixed: needed for layers.rule fixed")
    if config["train"] and not config["search"]:
        problems.append("train: there is nothing to train without a search; set it to null too")
    if config["full_training"] and not config["train"]:
        problems.append("full_training: needs train, which chooses and exports the winner; set it to null too")
    options = (config["full_training"] or {}).get("options", [])
    if "--seeds" in (str(option).partition("=")[0] for option in options):
        problems.append("full_training.options: it is one training; several seeds are several runs, by `--seed`")
    if config["train"] and not {"epochs", "base"} & set(config["train"]["recipe"]):
        problems.append("train.recipe: 'epochs' is missing")
    if config["search"] and config["search"]["parents"] > config["search"]["population"]:
        problems.append("search.parents: more than search.population")
    if config["search"] and config["search"]["method"] == "pruning":
        if config["space"]["family"] != "darts":
            problems.append(f"search.method: pruning is for space.family darts, not for {config['space']['family']}")
        problems += [
            f"budget.{name}: search.method pruning keeps to no budget; set it to null"
            for name, window in config["budget"].items()
            if window
        ]
    if latency_needed(config) and config["space"]["family"] not in ("autoformer", "pit"):
        key = "budget.latency" if config["budget"]["latency"] else "search.objectives"
        problems.append(f"{key}: latencies are looked up for space.family autoformer and pit only; leave latency out")
    if config["search"] and config["search"]["winner"] == "balanced" and config["search"]["method"] != "nsga2":
        problems.append("search.winner: balanced is a choice from the front of search.method nsga2")
    for name in {"lswag_lambda", "lswag_psi"} - set(config["score"]["proxies"]):
        problems.append(f"score.proxies: {name} is missing; the layer window is read from it")
    for name, window in config["budget"].items():
        if window and window[0] > window[1]:
            problems.append(f"budget.{name}: {window} has its least above its most")
    return problems
