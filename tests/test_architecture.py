"""The house stays as it is drawn: imports point one way, the public names are there, help answers at once."""

import subprocess
import sys
import tomllib
from pathlib import Path

import import_graph
import pytest
from import_graph import circles, imported, modules, room, room_graph

import tilepipe

PACKAGE = Path(tilepipe.__file__).parent

FLOORS = {
    "dtypes": 0,
    "errors": 0,
    "events": 0,
    "system": 1,
    "units": 1,
    "settings": 2,
    "deconv": 3,
    "image": 3,
    "psf": 4,
    "tiling": 5,
    "recipe": 6,
    "cache": 7,
    "planning": 8,
    "execution": 9,
    "arrays": 9,
    "report": 10,
    "testing": 10,
    "cli": 11,
    "__main__": 12,
}
"""A room imports only rooms of lower floors."""

ARRAYS_ONLY = ("deconv.", "psf.blind.")
STORAGE = {"dask", "zarr", "distributed", "tifffile"}


@pytest.fixture(scope="module")
def module_graph():
    return import_graph.module_graph()


def test_every_room_has_a_floor(module_graph):
    assert {room(module) for module in module_graph} == set(FLOORS)


def test_imports_point_down(module_graph):
    wrong = [
        f"{importer} imports {imported}"
        for importer, others in room_graph(module_graph).items()
        for imported in others
        if FLOORS[imported] >= FLOORS[importer]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle(module_graph):
    assert circles(module_graph) == []


def test_circles_are_found_under_type_checking_and_inside_functions(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "one.py").write_text("def run():\n    from package.two import go\n    return go\n")
    (package / "two.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import package.three\n")
    (package / "three.py").write_text("from package import one\n")
    (package / "four.py").write_text("from package.one import run\n")
    assert circles(import_graph.module_graph(package)) == [["one", "three", "two"]]


def test_deconv_and_blind_know_arrays_only():
    wrong = [
        f"{module} imports {name}"
        for module, path in modules().items()
        if module.startswith(ARRAYS_ONLY)
        for name in imported(path)
        if name.split(".")[0] in STORAGE
    ]
    assert wrong == []


def test_modules_can_be_read_in_one_sitting():
    long = {str(path): n for path in modules().values() if (n := len(path.read_text().splitlines())) > 450}
    assert long == {}


def test_public_names_are_sorted_and_there():
    assert tilepipe.__all__ == sorted(tilepipe.__all__)
    for name in tilepipe.__all__:
        assert getattr(tilepipe, name) is not None


def test_plan_is_the_function_even_after_a_run_was_imported():
    code = "import tilepipe.execution.pipeline, tilepipe; assert callable(tilepipe.plan), tilepipe.plan"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom tilepipe.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('numpy', 'numba', 'scipy', 'zarr', 'dask', 'rich', 'tifffile', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_versions_agree():
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text()
    assert f"## {tilepipe.__version__}" in changelog
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    assert "version" in project["dynamic"]
