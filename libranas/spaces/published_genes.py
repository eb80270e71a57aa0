"""Architectures as other projects write them: AutoFormer, TF-TAS, AZ-NAS (YAML), PreNAS, ViT-Bench-101 (JSON)."""

import json

import yaml

#: Genes that have another name here (PreNAS, ViT-Bench-101).
RENAMED = {"hidden_dim": "embed_dim", "layer_num": "depth"}

#: What entries of PreNAS say besides the genes.
FACTS = {"num_params", "score"}


def published_genes(text: str) -> dict:
    """Read the genes of one network: with our names, values as they are.

    Parameters
    ----------
    text : JSON or YAML: a mapping of genes, or one that has them in a section ``RETRAIN`` (AutoFormer, TF-TAS, AZ-NAS)
        or ``arch`` (ViT-Bench-101)

    Raises
    ------
    ValueError
        If it is no mapping.
    """
    try:
        record = json.loads(text)
    except ValueError:
        try:
            record = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    for section in ("RETRAIN", "arch"):
        if isinstance(record, dict) and section in record:
            record = record[section]
    if not isinstance(record, dict):
        raise ValueError("not a mapping of genes")
    genes = {str(key).lower(): value for key, value in record.items()}
    return {RENAMED.get(name, name): value for name, value in genes.items() if name not in FACTS}
