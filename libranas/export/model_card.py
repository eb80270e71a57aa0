"""The model card of an exported network."""

import json
from collections.abc import Mapping

import yaml


def model_card(
    title: str,
    network: Mapping,
    accuracy: Mapping,
    data: Mapping,
    recipe: Mapping,
    facts: Mapping,
    proxies: Mapping[str, float] | None = None,
    licence: str | None = None,
) -> str:
    """Write the model card in Markdown, with the header that the Hugging Face hub reads.

    Parameters
    ----------
    network : what it is: parameters, MACs, architecture
    accuracy : test accuracy with its interval, images, seeds
    data : name, classes, images of each split
    recipe : every hyperparameter
    facts : of :func:`libranas.core.provenance.facts`
    proxies : scores of the untrained network; None: it was not scored
    licence : of the weights; None: not stated
    """
    header = {
        "library_name": "timm",
        "tags": ["image-classification", "timm", "neural-architecture-search", "libranas"],
        **({"license": licence} if licence else {}),
    }
    hardware = ", ".join(facts["gpu"]) or f"{facts['cpu']}, {facts['cores']} cores"
    versions = ", ".join(f"{k} {facts['packages'][k]}" for k in ("torch", "timm") if k in facts["packages"])
    scores = "\n".join(["| proxy | score |", "|---|---|", *(f"| {k} | {v:.6g} |" for k, v in (proxies or {}).items())])
    return f"""---
{yaml.safe_dump(header, sort_keys=False).strip()}
---
# {title}

Trained with libranas (zero-shot neural architecture search: L-SWAG and LIBRA-NAS, CVPR 2025).

```python
import timm
import libranas.nets  # registers its own architectures with timm

model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True).eval()
```

## Accuracy

{_listing(accuracy)}

## Network

{_listing(network)}

## Data

{_listing(data)}

## Scores of the untrained network

{scores if proxies else "It was not scored."}

## Recipe

```yaml
{yaml.safe_dump(dict(recipe), sort_keys=False, default_flow_style=None).strip()}
```

## Conditions

{hardware}; Python {facts["python"]}, {versions}; libranas {facts["libranas"]}, commit {facts["commit"] or "unknown"}; \
{facts["time"]}.

## Licence

{licence or "Not stated: it depends on the images, which the licence of libranas (Apache-2.0) does not cover."}
"""


def _listing(facts: Mapping) -> str:
    """List facts, one a line; structures as JSON."""
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in facts.items()}
    return "\n".join(f"* {name}: {value}" for name, value in values.items())
