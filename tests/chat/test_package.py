"""The package that travels inside every logged model: what it may import, and its licence."""

import ast

import pytest

from tests.checkout import ROOT

pytestmark = pytest.mark.unit
PACKAGE = ROOT / "steps" / "chat"
MODULES = [path.relative_to(PACKAGE).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]


def imported_packages(module: str) -> set[str]:
    """Return the top-level packages that a module imports by absolute names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_nothing_of_the_project_and_one_module_torch_and_transformers(module):
    forbidden = {"steps"} | ({"chat"} if module != "model.py" else set())
    if module != "runtime/torch_session.py":
        forbidden |= {"torch", "transformers"}
    assert not imported_packages(module) & forbidden


def test_the_package_has_the_licence_of_the_project():
    assert (PACKAGE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
