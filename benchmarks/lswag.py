"""What carries the signal of L-SWAG: variants of Lambda and Psi on networks of two spaces.

    python benchmarks/lswag.py FOLDER-OF-TABLES

prints the Spearman correlation with accuracy, and the partial one given #params, of each variant and of products of
them. The values are in ``benchmarks/lswag``: one batch of 64 class-balanced CIFAR-10 training images (64 pixels for
TransNAS-Bench-101), one initialisation. ``microbatch``: training mode, 8 micro-batches; ``sample``: evaluation mode,
every image a unit. ``L_inv``: sum over layers of log sum 1 / std|g| (Eq. 1); ``L_signed`` of std g; ``L_zico`` of
E|g| / std g; ``L_num`` of the weights alone. ``P16_union``, ``P16_sum``: distinct patterns of 16 images, in all layers
or summed; ``PA2_sum``: of log2(units) + 2 images. The variant was chosen on NAS-Bench-201 (networks that no other table
here has) and on class_object of TransNAS-Bench-101; the other tables and ``benchmarks/published`` judge it.
"""

import argparse
from pathlib import Path

import pandas as pd

from libranas.core.stats import partial_spearman, spearman

HERE = Path(__file__).with_name("lswag")
TABLES = {
    "nasbench201": ["nasbench201-cifar10-9445"],
    "transnas101_micro": [
        f"transbench101_micro-{task}" for task in ("class_object", "autoencoder", "jigsaw", "normal", "segmentsemantic")
    ],
}
#: L-SWAG as published, with an unsaturated Psi, and as the proxy lswag_sample has it.
PRODUCTS = {
    "Eq. 1, micro-batches": ("microbatch_L_inv", "microbatch_P64_union"),
    "Eq. 1, samples": ("sample_L_inv", "sample_P64_union"),
    "Psi of 16, micro-batches": ("microbatch_L_inv", "microbatch_P16_union"),
    "Psi of 16, samples": ("sample_L_zico", "sample_P16_sum"),
    "lswag_sample": ("sample_L_zico", "sample_PA2_sum"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    folder = parser.parse_args().tables
    found = {}
    for space, names in TABLES.items():
        values = pd.read_csv(HERE / f"{space}.csv", index_col="arch")
        for name in names:
            table = pd.read_csv(folder / f"{name}.csv", index_col="arch").loc[values.index]
            variants = {column: values[column] for column in values}
            variants |= {title: values[a] * values[b] for title, (a, b) in PRODUCTS.items()}
            for title, column in {"params": table["params"], **variants}.items():
                found[title, f"{name} rho"] = spearman(column, table["val_accuracy"])
                partial = partial_spearman(column, table["val_accuracy"], table["params"])
                found[title, f"{name} partial"] = partial
    print(pd.Series(found).unstack(sort=False).round(3).to_string())


if __name__ == "__main__":
    main()
