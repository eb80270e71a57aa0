"""Read and write files of transformers as other projects keep them.

* YAML of AutoFormer (microsoft/Cream), TF-TAS and AZ-NAS: ``SUPERNET``, ``SEARCH_SPACE`` (the choices), ``RETRAIN``
  (one network, with genes of our own where the space offers them). A section of our own, ``LIBRANAS``, holds what else
  is not as in the published networks: keys of the config section ``space`` and the images.
* JSON of PreNAS: lists of networks by size in millions of parameters, as in ``interval_cands/small.json``.
* JSON of ViT-Bench-101 (Auto-Prox): a list of networks (``arch``) with accuracies.
* Canonical JSON, one network or a list of them.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from libranas.core.arch import Arch
from libranas.core.errors import LibranasError
from libranas.core.typed import Key, read
from libranas.spaces import FAMILIES, AutoFormerSpace, PiTSpace, Space, make_space
from libranas.spaces.autoformer import NETWORK_GENES
from libranas.spaces.published_genes import RENAMED, published_genes

if TYPE_CHECKING:
    import pandas as pd

#: What AutoFormer's files call the choices of a space, and what the configuration calls them; the same for PiT.
_CHOICES = {"EMBED_DIM": "embed_dim", "DEPTH": "depth", "NUM_HEADS": "num_heads", "MLP_RATIO": "mlp_ratio"}
_PIT_CHOICES = {"BASE_DIM": "base_dim", "DEPTH": "stage_depth", "NUM_HEADS": "num_heads", "MLP_RATIO": "mlp_ratio"}
#: All names of genes in files.
_NAMES = {"family", "base_dim", *_CHOICES.values(), *NETWORK_GENES, *RENAMED}
#: The section of our own, and the keys of it that are none of the config section ``space``.
_OWN = "LIBRANAS"
_TASK = ("image_size", "channels", "classes")
_LISTS = {*_CHOICES.values(), *_PIT_CHOICES.values()}


def read_file(path: str | Path):
    """Read a YAML or JSON file; LibranasError if it cannot be read."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LibranasError(f"{path} cannot be read as YAML or JSON ({reason}).", "Name a file of networks.") from None


def records(content) -> list[tuple[str, dict]]:
    """List the networks of a file, each with a name ('' if it has none) and all that the file says of it."""
    if isinstance(content, list):
        return [pair for entry in content for pair in records(entry)]
    if not isinstance(content, dict):
        return []
    if {"RETRAIN", "arch"} & set(content) or "mlp_ratio" in {str(key).lower() for key in content}:
        return [("", content)]
    # PreNAS: lists by size
    return [
        (str(key), entry) for key, value in content.items() if isinstance(value, list) for _, entry in records(value)
    ]


def _some_records(content) -> list[tuple[str, dict]]:
    if found := records(content):
        return found
    raise LibranasError(
        "there is no network.",
        "Expected YAML with a section RETRAIN (AutoFormer, TF-TAS, AZ-NAS), or JSON of PreNAS or ViT-Bench-101.",
    )


def space_settings(content) -> dict | None:
    """Return the config section ``space``: the choices of the section ``SEARCH_SPACE`` of a file, and what our own
    section says of the networks; None without the former.

    Raises
    ------
    LibranasError
        If the section is of another kind of network, or has choices a block (as PreNAS's supernets have).
    """
    section = content.get("SEARCH_SPACE") if isinstance(content, dict) else None
    if section is None:
        return None
    try:
        pit = "BASE_DIM" in section
        names = _PIT_CHOICES if pit else _CHOICES
        choices = {ours: section[theirs] for theirs, ours in names.items()}
        if pit:  # TF-TAS writes the depths of a stage as the text "1,2,3"
            stages = [d.split(",") if isinstance(d, str) else d for d in choices["stage_depth"]]
            choices["stage_depth"] = [[int(d) for d in depths] for depths in stages]
        if isinstance(section.get("PATCH_SIZE"), list) and len(section["PATCH_SIZE"]) == 1:
            choices["patch_size"] = section["PATCH_SIZE"][0]
        family = FAMILIES["pit" if pit else "autoformer"]
        own = {key: value for key, value in _own_section(content).items() if key not in _TASK}
        return {"family": family.name, **read(family.keys, choices, partial=True), **own}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LibranasError(
            f"SEARCH_SPACE is not the space of an AutoFormer or PiT ({error}).",
            f"Expected lists of numbers under {', '.join(_CHOICES)}, one space for all blocks.",
        ) from None


def _own_section(content) -> dict:
    """Return our own section of a file, checked; empty without one."""
    section = content.get(_OWN, {}) if isinstance(content, dict) else {}
    size = Key(int | None, None, {"above": 0, "below": 10**9})
    keys = {**FAMILIES["pit"].keys, **FAMILIES["autoformer"].keys, **dict.fromkeys(_TASK, size)}
    keys = {name: key for name, key in keys.items() if name not in {*_LISTS, "preset"}}
    try:
        return {key: value for key, value in read(keys, dict(section), partial=True).items() if value is not None}
    except (TypeError, ValueError) as error:
        raise LibranasError(
            f"the section {_OWN} cannot be used ({error}).", f"Expected a mapping of {', '.join(sorted(keys))}."
        ) from None


def network_space(
    content, settings: dict, image_size: int | None = None, channels: int | None = None, classes: int | None = None
) -> Space:
    """Make the space in which the networks of a file are read.

    Parameters
    ----------
    settings : config section ``space``; what it does not say comes from the file: the family, the choices of its
        section ``SEARCH_SPACE``, and (without a preset of AutoFormer) those that its networks use and the keys of our
        own section
    image_size, channels, classes : the task; None: as our own section says, else the published one, ImageNet-1k at
        224 px

    Raises
    ------
    LibranasError
        If the file or the settings do not make a space.
    """
    own = _own_section(content)
    stated = [own.get(name, getattr(AutoFormerSpace, name)) for name in _TASK]
    asked = (image_size, channels, classes)
    task = [there if given is None else given for given, there in zip(asked, stated, strict=True)]
    own = {name: value for name, value in own.items() if name not in _TASK}
    try:
        networks = [_genes(record) for _, record in _some_records(content)]
        declared = space_settings(content) or {}
        family = settings.get("family") or ("pit" if any("base_dim" in genes for genes in networks) else "autoformer")
        if family == PiTSpace.family:
            settings = declared | own | settings
        elif family == AutoFormerSpace.family and settings.get("preset") is None:
            settings = own | settings
            for gene in _CHOICES.values():
                values = [genes[gene] for genes in networks if gene in genes]
                flat = [number for value in values for number in (value if isinstance(value, list) else [value])]
                settings = {gene: sorted({*flat, *declared.get(gene, ())})} | settings
            for gene in NETWORK_GENES:
                if values := [genes[gene] for genes in networks if gene in genes]:
                    settings = {gene: values} | settings
        return make_space({"family": family} | settings, *task)
    except (TypeError, ValueError) as error:  # an unknown key, or choices that are no numbers
        raise LibranasError(f"no space: {error}", "See `space` in config/schema.yaml.") from None


def _genes(record: dict) -> dict:
    """Return the genes of an entry, without what the file says beside them."""
    if odd := [key for key in record if not isinstance(key, str)]:
        raise LibranasError(f"the key {odd[0]!r} beside a network is no text.", "Remove it, or put it in quotes.")
    try:
        genes = published_genes(json.dumps(record, default=str))
    except (TypeError, ValueError):
        raise LibranasError(f"{str(record)[:120]} is no network.", "Expected a mapping of genes.") from None
    return {name: value for name, value in genes.items() if name in _NAMES}


def networks_table(content, space: Space) -> "pd.DataFrame":
    """Return the networks of a file, a row each.

    Returns
    -------
    DataFrame with the columns ``architecture`` (canonical JSON), ``params``, ``macs``, and what the file says beside
    the genes (a number of parameters of its own is called ``stated_params``). As CSV it is a table for the key
    ``benchmark.table``.

    Raises
    ------
    LibranasError
        If the file holds no network, or one that is no member of `space`.
    """
    import pandas as pd  # not at the top: who reads the registry of spaces imports this module

    rows = []
    for name, record in _some_records(content):
        arch = space.parse(json.dumps(_genes(record)))
        row = {"architecture": arch.json, "params": space.params(arch), "macs": space.macs(arch)}
        facts = {k: v for k, v in record.items() if isinstance(v, int | float | str) and k.lower() not in _NAMES}
        row |= {(f"stated_{k}" if k in row else k): v for k, v in facts.items()}
        rows.append(row | ({"name": name} if name else {}))
    return pd.DataFrame(rows)


def one_network(content, space: Space, where: str) -> Arch:
    """Return the network of a file that holds one; LibranasError, which begins with `where`, for more or none."""
    try:
        table = networks_table(content, space)
    except LibranasError as error:
        raise LibranasError(f"{where}: {error.what}", error.todo) from None
    if len(table) > 1:
        raise LibranasError(f"{where}: there are {len(table)} networks.", "Name a file with one network.")
    return space.parse(table["architecture"][0])


# Writing ----------------------------------------------------------------------------------------------


def search_space(space: AutoFormerSpace | PiTSpace) -> dict:
    """Return the sections ``SUPERNET`` and ``SEARCH_SPACE`` of AutoFormer's files; for PiT the latter, as in TF-TAS."""
    if isinstance(space, PiTSpace):
        choices = {theirs: list(getattr(space, ours)) for theirs, ours in _PIT_CHOICES.items()}
        choices["DEPTH"] = [",".join(map(str, depths)) for depths in choices["DEPTH"]]
        return {"SEARCH_SPACE": {"PATCH_SIZE": [space.patch_size], **choices}}
    choices = {theirs: list(getattr(space, ours)) for theirs, ours in _CHOICES.items()}
    largest = {theirs: max(values) for theirs, values in choices.items()}
    if space.head_dim != "auto":  # their supernet is as wide as its queries
        largest["EMBED_DIM"] = max(largest["EMBED_DIM"], space.head_dim * largest["NUM_HEADS"])
    return {"SUPERNET": largest, "SEARCH_SPACE": choices}


def _differing(space: AutoFormerSpace | PiTSpace) -> dict:
    """Return our own section for a space and its task: where they are not those of the published networks."""
    published = type(space)(**{name: getattr(space, name) for name in _LISTS if hasattr(space, name)})
    names = [field.name for field in fields(space) if getattr(space, field.name) != getattr(published, field.name)]
    if isinstance(space, PiTSpace) and "patch_size" in names:  # in SEARCH_SPACE
        names.remove("patch_size")
    return {name: getattr(space, name) for name in names}


def yaml_text(space: AutoFormerSpace | PiTSpace, arch: Arch) -> str:
    """Write `arch` and its space as a YAML file of AutoFormer, TF-TAS and AZ-NAS (for PiT: of TF-TAS).

    :func:`network_space` without further settings reads the same space and task."""
    genes = json.loads(arch.json)
    retrain = {name: genes[name.lower()] for name in ("MLP_RATIO", "NUM_HEADS", "DEPTH")}
    if isinstance(space, PiTSpace):
        retrain = {"PATCH_SIZE": [space.patch_size]} | retrain | {"MLP_RATIO": [arch["mlp_ratio"]]}
        retrain["BASE_DIM"] = [arch["base_dim"]] * len(arch["depth"])
    else:
        retrain |= {name.upper(): genes[name] for name in ("embed_dim", *space.free)}
    own = _differing(space)
    return yaml.safe_dump(search_space(space) | {"RETRAIN": retrain} | ({_OWN: own} if own else {}), sort_keys=False)


def prenas_json(space: AutoFormerSpace, archs: Sequence[Arch]) -> str:
    """Write `archs` as PreNAS keeps its candidates: lists by the next whole million of parameters."""
    lists: dict[str, list] = {}
    for arch in sorted(archs, key=space.params):
        millions = space.params(arch) / 1e6
        entry = {
            "layer_num": arch["depth"],
            "mlp_ratio": list(arch["mlp_ratio"]),
            "num_heads": list(arch["num_heads"]),
            "embed_dim": [arch["embed_dim"]] * arch["depth"],
            "num_params": millions,
        }
        lists.setdefault(f"{math.ceil(millions):.1f}", []).append(entry)
    return json.dumps(lists) + "\n"
