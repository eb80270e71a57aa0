"""Nothing imports upwards: the floors of the package, and what may not be imported at all."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "libranas"

#: The table of floors in docs/architecture.md: floor, modules, whether they must import without torch ("all").
ROWS = [
    (int(floor), modules.split(), torch_free == "all")
    for floor, modules, torch_free in re.findall(
        r"^\| (\d) \| ([a-z_` ]+) \| (all|-) \|", (ROOT / "docs" / "architecture.md").read_text().replace("`", ""), re.M
    )
]
#: A module may import from its own floor or below. Packages stand for their modules.
FLOOR = {module: floor for floor, modules, _ in ROWS for module in modules}
WITHOUT_TORCH = [module for _, modules, torch_free in ROWS if torch_free for module in modules]


def sources() -> dict[str, Path]:
    """Dotted name below the package to file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


SOURCES = sources()


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, functions included; ``from a import b`` gives ``a.b``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(path: Path) -> set[str]:
    """Modules of the package that a file imports, dotted below the package."""
    found = set()
    for name in imported(path):
        if name.split(".")[0] == "libranas":
            inside = name.split(".")[1:]
            while inside and ".".join(inside) not in SOURCES:
                inside.pop()  # the last parts are names inside a module
            found.add(".".join(inside))
    return found


def test_every_module_has_a_floor_and_every_entry_a_module():
    assert {name.split(".")[0] for name in SOURCES} - {""} == set(FLOOR)


@pytest.mark.parametrize("name", [n for n in SOURCES if n])
def test_no_arrow_points_upwards(name):
    floor = FLOOR[name.split(".")[0]]
    upwards = {other for other in ours(SOURCES[name]) - {""} if FLOOR[other.split(".")[0]] > floor}
    assert not upwards, f"libranas.{name} (floor {floor}) imports from above: {sorted(upwards)}"


def test_no_circle():
    """Also within a floor. A package's ``__init__`` comes after its modules."""
    graph = {name: {other for other in ours(path) if other not in ("", name)} for name, path in SOURCES.items() if name}
    list(graphlib.TopologicalSorter(graph).static_order())


def test_the_top_of_the_package_imports_nothing_of_it():
    assert ours(SOURCES[""]) == set()


@pytest.mark.parametrize("name", [n for n in SOURCES if n])
def test_the_package_knows_neither_snakemake_nor_an_argument_parser(name):
    roots = {other.split(".")[0] for other in imported(SOURCES[name])}
    allowed = {"argparse"} if name.split(".")[0] == "cli" else set()  # its small command line apart
    assert not (roots - allowed) & {"snakemake", "argparse", "optparse", "getopt", "click", "typer", "fire"}


def test_nothing_of_the_package_needs_its_command_line():
    uses = {name.split(".")[0] for name, path in SOURCES.items() if {m.split(".")[0] for m in ours(path)} & {"cli"}}
    assert uses == {"cli", "__main__"}


def test_what_needs_no_torch_does_not_import_it():
    code = f"""
import importlib, sys
for name in {WITHOUT_TORCH!r}:
    importlib.import_module("libranas." + name)
    heavy = sorted({{"torch", "timm", "torchvision"}} & set(sys.modules))
    assert not heavy, f"libranas.{{name}} imports {{', '.join(heavy)}}"
import libranas
assert set(libranas.__all__) <= set(dir(libranas))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_scoring_needs_neither_the_workflow_nor_the_learners():
    """A machine with a GPU may have torch, timm and little else."""
    code = """
import sys
for name in ("snakemake", "lightgbm", "jinja2", "matplotlib"):
    sys.modules[name] = None
import torch
import libranas, libranas.engine, libranas.spaces, libranas.nets, libranas.cli
net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 2))
card = libranas.score(net, torch.randn(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]), ["lswag_lambda"])
assert card["lswag_lambda"] > 0
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_promised_names_exist():
    import libranas

    for name in libranas.__all__:
        assert callable(getattr(libranas, name))
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = libranas.nothing_such


@pytest.mark.parametrize("path", sorted({*(ROOT / "scripts").glob("[!_]*.py")} - {ROOT / "scripts/mock_snakemake.py"}))
def test_scripts_are_thin(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 14, f"{path.name} has {len(lines)} lines: move work into the package"
    tree = ast.parse("\n".join(lines))
    assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]


def test_scripts_and_rules_are_one_to_one():
    """Every script is run by a rule, and every script that a rule names exists."""
    rules = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "rules").glob("*.smk"))
    scripts = {path.name for path in (ROOT / "scripts").glob("[!_]*.py")} - {"mock_snakemake.py"}
    assert scripts == set(re.findall(r"scripts/(\w+\.py)", rules))


def test_the_picture_of_the_architecture_shows_the_floors():
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn: dict[int, set[str]] = {}
    for floor, modules in re.findall(r'\["(\d)  ([a-z_ ·]+)"\]', text):
        drawn.setdefault(int(floor), set()).update(modules.split(" · "))
    table: dict[int, set[str]] = {}
    for floor, modules, _ in ROWS:
        table.setdefault(floor, set()).update(modules)
    assert drawn == table
