"""The wings' front doors: nothing is loaded before it is asked for, and a handed-on name wins over a module's."""

import subprocess
import sys
from importlib import import_module

import pytest

from utils.paths import ROOT

WINGS = sorted(path.parent.name for path in (ROOT / "utils").glob("*/__init__.py"))


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after `code`."""
    program = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("wing", WINGS)
def test_every_name_is_there(wing):
    package = import_module(f"utils.{wing}")
    for name in package.NAMES:
        assert getattr(package, name) is not None and name in dir(package), name


def test_a_wing_loads_nothing_by_itself():
    loaded = loaded_after("\n".join(f"import utils.{wing}" for wing in WINGS))
    assert {f"utils.{wing}" for wing in WINGS} <= loaded
    assert not loaded & {"torch", "numpy", "utils.sae.model", "utils.course.checking"}


def test_a_check_loads_neither_of_the_large_libraries():
    loaded = loaded_after("import utils.course.checking\nfrom utils.course import check, claim, hint, ledger, progress, ready, solution")
    assert "torch" in loaded and not loaded & {"transformer_lens", "sae_lens"}


def test_a_name_wins_over_the_module_of_the_same_name():
    module = import_module("utils.course.ledger")
    import utils.course

    assert utils.course.ledger is module.ledger
    from utils.course import doctor  # a module that is not handed on is found as ever

    assert doctor is sys.modules["utils.course.doctor"]


def test_an_unknown_name_is_an_error():
    with pytest.raises(ImportError, match="SAEE"):
        from utils.sae import SAEE  # noqa: F401
    with pytest.raises(AttributeError, match=r"'utils\.sae' has no attribute 'SAEE'"):
        import_module("utils.sae").SAEE  # noqa: B018
