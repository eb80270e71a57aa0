"""Every public name that docs/reference.md lists exists and has a docstring, and so have its public methods.

The files are parsed and nothing is imported.
"""

import ast
import re
from pathlib import Path

import pytest

import libranas

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference.md").read_text()
STABLE = (ROOT / "docs/stability.md").read_text()
LISTED = re.findall(r"^::: (libranas\.[\w.]+)\.(\w+)$", PAGE, re.M)


def parsed(module: str) -> ast.Module:
    path = ROOT / module.replace(".", "/")
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {n.name: n for n in node.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}


def undocumented(tree: ast.Module, name: str, base: ast.ClassDef) -> list[str]:
    """Return what has no docstring: the function or class `name` and its methods, unless `base` has it for them."""
    (found,) = (node for node in tree.body if getattr(node, "name", None) == name)
    nodes = {name: found} | (methods(found) if isinstance(found, ast.ClassDef) else {})
    if base.name in [getattr(b, "id", "") for b in getattr(found, "bases", ())]:
        nodes = {key: node for key, node in nodes.items() if key not in methods(base)}
    return [key for key, node in nodes.items() if not ast.get_docstring(node)]


@pytest.fixture(scope="module")
def space() -> ast.ClassDef:
    """The class whose docstrings say what the methods of every search space do."""
    return next(n for n in parsed("libranas.spaces.base").body if isinstance(n, ast.ClassDef) and n.name == "Space")


@pytest.mark.parametrize(("module", "name"), LISTED, ids=lambda text: text.removeprefix("libranas."))
def test_a_listed_name_is_documented(module, name, space):
    assert undocumented(parsed(module), name, space) == []


def test_a_name_without_docstring_is_found(space):
    source = 'class A(Space):\n    """Yes."""\n    def b(self): ...\n    def _c(self): ...\n    def size(self): ...'
    assert undocumented(ast.parse(source), "A", space) == ["b"]


def test_all_that_the_package_exports_is_listed():
    for name, home in libranas._HOMES.items():
        assert f"heading: libranas.{name}" in PAGE, f"{home}.{name}"


def exported(name: str) -> list[str]:
    """Return the names that a package exports, in full; of another module or name itself."""
    if not (ROOT / name.replace(".", "/")).is_dir():
        return [name]
    names = next(n.value for n in parsed(name).body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__")
    return [f"{name}.{own}" for own in ast.literal_eval(names)]


def test_all_that_is_promised_by_name_is_listed():
    directives = re.findall(r"^::: (\S+)(?:\n +options: \{heading: ([\w.]+))?", PAGE, re.M)
    listed = {heading or path for path, heading in directives}
    row = re.search(r"^\| Python names \|.*", STABLE, re.M)[0]
    names = {own for name in re.findall(r"`([\w.]+)`", row) if name != "libranas" for own in exported(name)}
    assert {"libranas.score", "libranas.published.vit_six", "libranas.nets", "Pool"} <= names
    assert [name for name in names if not any(f".{full}".endswith(f".{name}") for full in listed)] == []
