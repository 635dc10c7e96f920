"""pyproject.toml, requirements.lock and environment.yml say the same, and the course names no place it should not."""

import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
BOUNDS = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]]
LOCK = {canonicalize_name(requirement.name): requirement
        for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines() if line and not line.startswith("#")
        for requirement in [Requirement(line)]}


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_lock_lies_within_the_bounds(bound):
    locked = LOCK[canonicalize_name(bound.name)]
    (pin,) = locked.specifier
    assert pin.operator == "==" and bound.specifier.contains(pin.version), f"{locked} is outside {bound}"


def test_every_bound_has_a_floor_and_none_pins():
    for bound in BOUNDS:
        operators = {part.operator for part in bound.specifier}
        assert ">=" in operators and "==" not in operators, bound


def test_lock_pins_everything_exactly():
    assert str(LOCK["torch"].specifier) == "==2.13.0"
    for requirement in LOCK.values():
        assert [part.operator for part in requirement.specifier] == ["=="] and requirement.url is None, requirement


def test_conda_installs_the_lock_on_a_python_that_the_project_allows():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    (pip,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert pip == ["-r requirements.lock"]
    (python,) = (Requirement(entry) for entry in dependencies if isinstance(entry, str) and entry.startswith("python"))
    floor = next(part.version for part in Requirement(f"python{PROJECT['requires-python']}").specifier)
    assert python.specifier.contains(floor) and not python.specifier.contains("3.10")


def test_code_outside_utils_is_not_importable_by_accident():
    """Only utils is a package: `import tests` or `import solutions` must not find ours, nor ours a stranger's."""
    assert not list((ROOT / "tests").glob("__init__.py")) and not list((ROOT / "solutions").glob("__init__.py"))


def test_readme_lists_every_chapter():
    readme = (ROOT / "README.md").read_text("utf-8")
    for source in (ROOT / "solutions").glob("[0-9]*.md"):
        assert f"chapters/{source.stem}.ipynb" in readme and f"solutions/{source.stem}.ipynb" in readme
