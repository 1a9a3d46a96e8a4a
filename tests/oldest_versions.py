"""Print the oldest versions that pyproject.toml allows, as constraints for pip: ``name==floor``, a line each."""

import re
import tomllib
from pathlib import Path


def oldest_versions(project: Path) -> list[str]:
    """Return "name==floor" for every dependency of `project`, a pyproject.toml; extras are left out."""
    dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
    return [re.sub(r">=", "==", dependency) for dependency in dependencies]


if __name__ == "__main__":
    print("\n".join(oldest_versions(Path(__file__).parents[1] / "pyproject.toml")))
