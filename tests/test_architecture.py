"""The house stays as it is drawn: imports point one way, the public names are there, help answers at once."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import tilepipe

PACKAGE = Path(tilepipe.__file__).parent

FLOORS = {
    "errors": 0,
    "events": 0,
    "units": 1,
    "system": 0,
    "deconv": 1,
    "psf": 1,
    "image": 2,
    "tiling": 3,
    "settings": 3,
    "recipe": 4,
    "penalties": 4,
    "tuning": 4,
    "blind": 4,
    "last_check": 4,
    "look": 4,
    "cache": 5,
    "arrays": 5,
    "lazy": 5,
    "decisions": 6,
    "runtime": 6,
    "choices": 7,
    "planning": 7,
    "ingest": 8,
    "restoration": 8,
    "export": 8,
    "pipeline": 8,
    "report": 9,
    "testing": 9,
    "cli": 10,
    "__main__": 11,
}
"""A module may import from floors at or below its own; a floor's rooms do not know those above."""

ARRAYS_ONLY = ("deconv",)
STORAGE = {"dask", "zarr", "distributed", "tifffile"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path != PACKAGE / "__init__.py":
            yield path, path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, *, lazy=True):
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else tree.body
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_a_floor():
    assert {room for _, room in modules()} == set(FLOORS)


def test_imports_point_down():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path, room in modules()
        for name in imports(path, lazy=False)
        if name.startswith("tilepipe.") and FLOORS[name.split(".")[1]] > FLOORS[room]
    ]
    assert wrong == []


def test_deconv_knows_arrays_only():
    wrong = [
        f"{path.name} imports {name}"
        for path, room in modules()
        if room in ARRAYS_ONLY
        for name in imports(path)
        if name.split(".")[0] in STORAGE
    ]
    assert wrong == []


def test_modules_can_be_read_in_one_sitting():
    long = {str(path): n for path, _ in modules() if (n := len(path.read_text().splitlines())) > 450}
    assert long == {}


def test_public_names_are_sorted_and_there():
    assert tilepipe.__all__ == sorted(tilepipe.__all__)
    for name in tilepipe.__all__:
        assert getattr(tilepipe, name) is not None


def test_plan_is_the_function_even_after_a_run_was_imported():
    code = "import tilepipe.pipeline, tilepipe; assert callable(tilepipe.plan), tilepipe.plan"
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
