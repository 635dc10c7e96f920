"""Which files stand behind an import: what a solved notebook's content key covers."""

from utils.course.imports import handed_on, imported_files, utils_behind
from utils.paths import ROOT


def names(paths) -> set[str]:
    return {path.relative_to(ROOT / "utils").as_posix() for path in paths}


def test_a_name_that_a_wing_hands_on_leads_to_its_own_file():
    assert names(imported_files("from utils.sae import SAE, train_sae")) == {"sae/model.py", "sae/training.py"}
    assert names(imported_files("from utils.course import ledger")) == {"course/ledger.py"}


def test_every_way_to_import_a_module():
    for code in ("import utils.data.truth", "import utils.data.truth as t", "from utils.data import truth",
                 "from utils.data.truth import city_statements", "def f():\n    from utils.data.truth import city_statements"):
        assert names(imported_files(code)) == {"data/truth.py"}, code


def test_what_is_not_ours_or_never_runs_is_left_out():
    assert not list(imported_files("import torch\nfrom json import loads\nfrom . import x\nimport utilsx.paths"))
    assert not list(imported_files("if TYPE_CHECKING:\n    from utils.sae import SAE"))


def test_a_file_behind_a_file_counts():
    assert {"sae/model.py", "hooks.py", "paths.py"} <= names(utils_behind("from utils.sae import load_sae"))
    assert utils_behind("from utils.sae import load_sae") == utils_behind("from utils.sae.model import load_sae")


def test_names_of_a_wing_are_read_without_running_it():
    assert handed_on("utils.sae")["SAE"] == "model"
    assert handed_on("utils.hooks") == handed_on("utils") == handed_on("torch") == {}
