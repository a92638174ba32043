"""Imports point only left, in no circle, and `import pixelwise` is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pixelwise

ROOT = Path(pixelwise.__file__).parent

# From left to right; parts that stand together know nothing of each other.
LAYERS = (
    {"errors"},
    {"config", "complaints", "kernels"},
    {"core"},
    {"nn", "losses", "metrics"},
    {"models", "tasks", "data"},
    {"objectives", "views", "engines", "checkpoints"},
    {"prediction"},
    {"evaluation"},
    {"report"},
    {"training"},
    {"export", "prune", "listing", "advice", "commands"},
    {"cli", "serve"},
    {"__main__"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
FILES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(p) for p in FILES}


def imported(path: Path, *, only_at_import: bool = False) -> Iterator[str]:
    """Modules of the package that a file names in an import; functions' bodies are left out on demand."""
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if only_at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "pixelwise")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import from the root"
            if node.module and node.module.split(".")[0] == "pixelwise":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in MODULES else node.module
        todo.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_only_left(path):
    part = path.relative_to(ROOT).with_suffix("").parts[0]
    assert part in LEVEL, f"{part} stands in no layer: give it a place in LAYERS"
    for module in imported(path):
        if module == "pixelwise":
            continue  # the version
        other = module.split(".")[1]
        assert other == part or LEVEL[other] < LEVEL[part], f"{module_of(path)} imports {module}, to its right"


def test_no_circle_of_imports():
    graph = {module_of(p): set(imported(p, only_at_import=True)) - {"pixelwise", module_of(p)} for p in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports go in a circle: {' -> '.join(error.args[1])}")


def imported_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_is_light():
    loaded = imported_by("import pixelwise")
    assert not loaded & {"torch", "torchvision", "timm", "accelerate", "cv2", "matplotlib", "scipy", "transformers"}


def test_the_core_needs_neither_torchvision_nor_timm():
    statement = "import pixelwise; pixelwise.Segments, pixelwise.Dense, pixelwise.create_model, pixelwise.Classes"
    assert not imported_by(statement) & {"torchvision", "timm", "accelerate", "matplotlib"}


def test_every_public_name_says_where_it_lives():
    for name, home in pixelwise._PUBLIC.items():
        file = ROOT / (home or name).replace(".", "/")
        assert file.with_suffix(".py").exists() or (file / "__init__.py").exists(), f"{name}: {home} does not exist"
    with pytest.raises(AttributeError, match="no attribute 'segment'"):
        pixelwise.segment  # noqa: B018  # the access is the test
    assert set(dir(pixelwise)) == set(pixelwise.__all__)


def test_every_package_that_is_imported_is_a_dependency():
    project = tomllib.loads((ROOT.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    stated = {re.split(r"[^\w.-]", line)[0].replace("-", "_") for line in lines}
    known = {"cv2": "opencv_python_headless", "PIL": "pillow", "yaml": "pyyaml", "triton": "torch"}  # torch brings it
    third_party = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            third_party |= {name.split(".")[0] for name in names}
    third_party -= {*sys.stdlib_module_names, "pixelwise"}
    assert {known.get(name, name) for name in third_party} <= stated
