"""``libranas tables`` and ``libra`` for tables of scores and accuracies, ``networks`` for files of other projects."""

import argparse
from pathlib import Path

import yaml

from libranas.cli import count, positive
from libranas.core.errors import LibranasError
from libranas.core.files import write_text
from libranas.core.text import key_value, text_table

#: How a table is named.
TABLE = "CSV, JSON of NAS-Bench-Suite-Zero, and others; FILE:TASK names one of several tasks"


def add(commands) -> None:
    tables = commands.add_parser("tables", description=_tables.__doc__)
    tables.set_defaults(run=_tables)
    tables.add_argument("table", metavar="FILE[:TASK]", help=TABLE)
    libra = commands.add_parser("libra", description=_libra.__doc__)
    libra.set_defaults(run=_libra)
    libra.add_argument("table", metavar="FILE[:TASK]", help=f"{TABLE}; proxies, higher = better")
    libra.add_argument("--scores", metavar="FILE", help="further scores of the same architectures")
    libra.add_argument("--accuracy", metavar="COLUMN", help="default: accuracy, val_accuracy or val_accs")
    libra.add_argument("--params", default="params", metavar="COLUMN", help="numbers of parameters (default: params)")
    libra.add_argument("--labels", type=positive, default=30, help="accuracies that are looked at (default: 30)")
    libra.add_argument("--splits", type=positive, default=20, help="random choices of them (default: 20)")
    libra.add_argument("--seed", type=count, default=0, help="of the splits (default: 0)")
    libra.add_argument("--methods", metavar="A,B,...", help="of the comparison (default: all)")
    libra.add_argument("--output", type=Path, metavar="FILE.csv", help="write the comparison here")
    networks = commands.add_parser("networks", description=_networks.__doc__)
    networks.set_defaults(run=_networks)
    networks.add_argument(
        "file", type=Path, metavar="FILE", help="YAML of AutoFormer, TF-TAS, AZ-NAS; JSON of PreNAS, ViT-Bench-101"
    )
    networks.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the config section `space` (preset=small); may be repeated (default: what the networks use)",
    )
    networks.add_argument("--image-size", type=positive, metavar="S", help="default: the file's, otherwise 224")
    networks.add_argument("--channels", type=count, choices=(1, 3), help="default: the file's, otherwise 3")
    networks.add_argument("--classes", type=positive, help="default: the file's, otherwise 1000")
    networks.add_argument(
        "--to",
        choices=("text", "csv", "config", "yaml", "prenas"),
        default="text",
        help="text: a table to look at (default); csv: a table for `benchmark.table`; config: the section `space` with "
        "the choices of the file; yaml: AutoFormer's file of the one network; prenas: PreNAS's of all",
    )
    networks.add_argument("--output", type=Path, metavar="FILE", help="write to a file")


def _tables(arguments: argparse.Namespace) -> None:
    """List what a file of tables holds: its tasks, and the range of each column. Architectures that the space does not
    have are counted."""
    from libranas.core.text import file_and_task
    from libranas.labels.table_files import read_table_file, read_tables

    path, task = file_and_task(arguments.table)
    tables = read_tables(path) if task is None else {task: read_table_file(arguments.table)}
    print("\n\n".join(_contents(table, f"{path}:{task}" if task else path) for task, table in tables.items()))


def _contents(table, location: str) -> str:
    """Return the size of a table, and the range of each column of numbers."""
    import numpy as np

    from libranas.published.tables import SPACES, space_of

    said = f"{location}: {len(table.frame)} networks"
    if table.name.partition("-")[0] in SPACES:
        space = space_of(table.name)
        odd = [text for text in table.frame.iloc[:, 0] if not _is_member(space, str(text))]
        said += f" of {space.title}" + (f"; the space does not have {len(odd)} of them, e.g. {odd[0]}" if odd else "")
    rows = []
    for name, column in table.numbers().items():
        finite = column[np.isfinite(column)]
        if len(finite):
            rows.append((str(name), f"{finite.min():.6g}", f"{finite.max():.6g}", str(len(column) - len(finite))))
    accuracy = table.accuracy()
    if accuracy not in table.frame:
        said += "; no column of accuracies"
    return f"{said}\n\n" + text_table(("column", "least", "greatest", "missing"), rows, right={1, 2, 3})


def _is_member(space, text: str) -> bool:
    try:
        return bool(space.parse(text))
    except LibranasError:
        return False


def _libra(arguments: argparse.Namespace) -> None:
    """Choose three proxies from some accuracies of a table, and compare all ways of combining proxies on the others.
    A table of a published benchmark (SPACE-TASK.csv, zc_SPACE.json) also shows learners its architectures."""
    from libranas.predictors.selection import choose_and_judge
    from libranas.published.tables import read_table

    names = None if arguments.methods is None else arguments.methods.split(",")
    table = read_table(arguments.table, arguments.scores, accuracy=arguments.accuracy, params=arguments.params)
    settings = {"mode": "corrected", "combiner": "libra_corrected", "window": 0.1, "duplicate": 0.98}
    settings |= {"calibration": arguments.labels, "splits": arguments.splits, "methods": names}
    known = table.sample
    judged = (known.score_AP, table.accuracy_A, known.params_A, settings, arguments.seed)
    verdict = choose_and_judge(*judged, known.feature_AF, table.network_A)
    methods = verdict.methods.sort_values("spearman", ascending=False)
    if arguments.output:
        write_text(arguments.output, methods.to_csv(index=False))
    for reason in verdict.choice["reasons"]:
        print(reason)
    rows = [
        (
            m.method,
            str(m.labels),
            *(f"{v:.3f}" for v in (m.spearman, m.low, m.high, m.kendall, m.p5)),
            f"{m.regret:.4g}",
        )
        if not m.lacks
        else (m.method, "", f"needs {m.lacks}", *[""] * 5)
        for m in methods.itertuples()
    ]
    head = ("method", "labels", "Spearman", "2.5 %", "97.5 %", "Kendall", "best 5 % found", "regret")
    print(f"\nMeans of {arguments.splits} splits, judged on the other architectures:\n")
    print(text_table(head, rows, right={1, 2, 3, 4, 5, 6, 7}))


def _networks(arguments: argparse.Namespace) -> None:
    """Read networks and search spaces from files of AutoFormer, TF-TAS, AZ-NAS, PreNAS and ViT-Bench-101, count their
    parameters and MACs, and write them in another format."""
    from libranas.spaces import file_formats as files

    content = files.read_file(arguments.file)
    settings = dict(key_value(pair, "--space") for pair in arguments.space)
    try:
        if arguments.to == "config":
            text = _space_section(files, content, arguments.file)
        else:
            task = arguments.image_size, arguments.channels, arguments.classes
            space = files.network_space(content, settings, *task)
            table = files.networks_table(content, space)
            archs = [space.parse(text) for text in table["architecture"]]
            text = _networks_text(files, arguments, space, archs, table)
    except LibranasError as error:
        raise LibranasError(f"{arguments.file}: {error.what}", error.todo) from None
    if arguments.output:
        write_text(arguments.output, text)
    else:
        print(text, end="" if text.endswith("\n") else "\n")


def _space_section(files, content, path: Path) -> str:
    settings = files.space_settings(content)
    if settings is None:
        raise LibranasError("there is no section SEARCH_SPACE.", "Only AutoFormer's YAML files have one.")
    return yaml.safe_dump({"space": settings}, sort_keys=False, default_flow_style=None)


def _networks_text(files, arguments: argparse.Namespace, space, archs: list, table) -> str:
    if arguments.to == "csv":
        return table.to_csv(index=False)
    if arguments.to == "prenas":
        if space.family != "autoformer":
            raise LibranasError(f"PreNAS has no networks of the family {space.family}.", "Use --to csv or yaml.")
        return files.prenas_json(space, archs)
    if arguments.to == "yaml":
        if len(archs) > 1:
            raise LibranasError(
                f"there are {len(archs)} networks, and AutoFormer's files hold one.", "Use --to csv or prenas."
            )
        return files.yaml_text(space, archs[0])
    names = list(table["name"]) if "name" in table else [arch.id for arch in archs]
    rows = []
    for name, arch in zip(names, archs, strict=True):
        genes = {gene: arch[gene] for gene in arch.genes}
        said = " ".join(f"{k} {','.join(f'{x:g}' for x in v) if isinstance(v, tuple) else v}" for k, v in genes.items())
        rows.append((name, f"{space.params(arch) / 1e6:.3f}", f"{space.macs(arch) / 1e9:.3f}", said))
    size = f"{space.image_size} px, {space.classes} classes"
    return text_table(("network", "M params", "GMACs", f"genes ({size})"), rows, right={1, 2})
