"""The house: which rooms there are, on which floor, and that every import goes down. Run it as a script to print the map."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the script; under pytest it is there already

from utils.course.imports import imported_files, imported_modules  # noqa: E402
from utils.paths import ROOT  # noqa: E402

UTILS = ROOT / "utils"
MOST_LINES = 350
# A room is a wing, or a module of the ground floor's own; what stands below may not know what stands above.
FLOORS = [
    ("lazy", "paths", "intervals", "hooks", "untrained"),
    ("activation_cache", "plots", "probes", "data", "worlds"),
    ("activations", "default_model"),
    ("models", "sentences"),
    ("course", "sae"),
    ("reading", "steering"),
    ("organisms", "pipeline"),
    ("yours",),
    ("__main__",),
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

FILES = sorted(path for path in UTILS.rglob("*.py") if path.name != "__init__.py")
FRONT_DOORS = sorted(UTILS.glob("*/__init__.py"))
IMPORTS = {path: set(imported_files(path.read_text("utf-8"))) - {path} for path in FILES}


def room_of(path: Path) -> str:
    inside = path.relative_to(UTILS).parts
    return inside[0] if len(inside) > 1 else path.stem


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


ARROWS = {(room_of(path), room_of(other)) for path, others in IMPORTS.items() for other in others if room_of(path) != room_of(other)}


def house() -> str:
    """The map: one line a floor, the top floor first; what a room is, is said by its docstring."""
    lines = [f"{floor}  {'  '.join(rooms)}" for floor, rooms in reversed(list(enumerate(FLOORS)))]
    return "\n".join(lines)


def size() -> str:
    return f"The house has {len({room_of(path) for path in FILES})} rooms on {len(FLOORS)} floors, with {len(ARROWS)} arrows."


def test_every_room_has_its_floor():
    rooms = {room_of(path) for path in FILES}
    assert rooms == set(FLOOR_OF), f"{size()} Without a floor: {sorted(rooms - set(FLOOR_OF))}; without a file: {sorted(set(FLOOR_OF) - rooms)}"


def test_arrows_go_down():
    wrong = [f"{short(path)} imports {short(other)}" for path, others in IMPORTS.items() for other in others
             if room_of(path) != room_of(other) and FLOOR_OF[room_of(path)] <= FLOOR_OF[room_of(other)]]
    assert not wrong, f"{size()} These go up, or across a floor:\n" + "\n".join(wrong)


def test_no_circle_between_files():
    left = dict(IMPORTS)
    while free := [path for path, others in left.items() if not others & left.keys()]:
        for path in free:
            del left[path]
    assert not left, f"{size()} These stand in a circle, or above one: {[short(path) for path in left]}"


def test_no_file_is_too_long_to_be_read_at_once():
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "exercises" not in path.parts]
    long = {short(path): count for path in [*FILES, *tests] if (count := path.read_text("utf-8").count("\n")) > MOST_LINES}
    assert not long, f"More than {MOST_LINES} lines: {long}"


@pytest.mark.parametrize("path", [*FILES, *FRONT_DOORS], ids=short)
def test_utils_knows_neither_solutions_nor_tests(path):
    assert not {"solutions", "tests"} & {module.split(".")[0] for module in imported_modules(path.read_text("utf-8"))}


@pytest.mark.parametrize("path", FRONT_DOORS, ids=short)
def test_a_wings_front_door_only_hands_on(path):
    """A docstring that says what the wing is, the names as a literal, and the call that hands them on."""
    docstring, *statements = ast.parse(path.read_text("utf-8")).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    assert [ast.unparse(statement).split(" = ")[0] for statement in statements] == ["from utils.lazy import hand_on", "NAMES", "hand_on(__name__, NAMES)"]
    names = ast.literal_eval(statements[1].value)
    missing = {module for module in names.values() if not (path.parent / f"{module}.py").is_file()}
    assert not missing, f"{short(path)} hands on names of {sorted(missing)}, which are no files of the wing"


def test_contributing_shows_the_map():
    assert house() in (ROOT / "CONTRIBUTING.md").read_text("utf-8"), f"{size()} CONTRIBUTING.md should show\n{house()}"


if __name__ == "__main__":
    print(f"{size()}\n\n{house()}")
