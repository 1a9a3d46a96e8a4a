"""Which module of the package imports which, and which rooms form a circle: ``python -m tests.import_graph [FOLDER]``.

All imports count: those at the top of a module, inside functions and under ``TYPE_CHECKING``.  A room is a folder or a
loose module of the package; an arrow leads from the room that imports to the one imported.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "tilepipe"

Graph = dict[str, set[str]]


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Return every module's dotted name below the package, without it: {"cache.store": path}; "" is the package."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports; for ``from a import b`` both "a" and "a.b"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_graph(package: Path = PACKAGE) -> Graph:
    """Return the modules that each module imports; the package's own ``__init__`` is left out."""
    known = modules(package)
    graph: Graph = {}
    for name, path in known.items():
        inside = {one.partition(".")[2] for one in imported(path) if one.startswith(f"{package.name}.")}
        graph[name] = (inside & known.keys()) - {name}
    graph.pop("")
    return graph


def room(module: str) -> str:
    """Return the folder, or the loose module, that a module belongs to."""
    return module.partition(".")[0]


def room_graph(graph: Mapping[str, Iterable[str]]) -> Graph:
    """Return the rooms that each room imports."""
    rooms: Graph = {room(module): set() for module in graph}
    for module, others in graph.items():
        rooms[room(module)] |= {room(other) for other in others} - {room(module)}
    return rooms


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node (Tarjan 1972), sorted."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == order[node]:
            at = stack.index(node)
            component = sorted(stack[at:])
            del stack[at:]
            if len(component) > 1:
                found.append(component)

    for node in graph:
        if node not in order:
            visit(node)
    return sorted(found)


def main(package: Path) -> None:
    """Print rooms with what they import, counts and circles."""
    graph = module_graph(package)
    rooms = room_graph(graph)
    for name, others in sorted(rooms.items()):
        print(f"{name}: {', '.join(sorted(others)) or '-'}")
    arrows = sum(map(len, rooms.values()))
    print(f"{len(graph)} modules, {len(rooms)} rooms, {arrows} arrows between rooms")
    print("circles of rooms:", circles(rooms) or "none")
    print("circles of modules:", circles(graph) or "none")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
