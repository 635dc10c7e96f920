"""Cached activations: a key of all that matters, and files that may be damaged."""

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

import utils.activations
from utils.activation_cache import from_half, to_half
from utils.activations import TokenActivations, collect_activations, tokenize
from utils.hooks import intervene, resid_post, resid_pre, run_with_cache
from utils.models import tiny_model

TEXTS = [
    "The city of Paris is in France.",
    "true",
    "A dog and a cat.",
    "The key to the cabinets is very bad and the dog is good.",
    "Two dogs.",
]
NAME = resid_post(1)


@pytest.fixture
def model() -> TransformerBridge:
    return tiny_model()


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """A cache folder of its own for every test."""
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    return tmp_path / "activations"


@pytest.fixture
def runs(monkeypatch) -> list[list[str]]:
    """The hook names of every forward pass."""
    seen = []

    def recorded(model, tokens, names):
        seen.append(list(names))
        return run_with_cache(model, tokens, names)

    monkeypatch.setattr(utils.activations, "run_with_cache", recorded)
    return seen


def collect(model, inputs, names=NAME, **options):
    return collect_activations(model, inputs, names, **{"cache": False, "progress": False, **options})


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def same(one, other) -> bool:
    if isinstance(one, TokenActivations):
        return all(torch.equal(getattr(one, field), getattr(other, field)) for field in vars(one))
    return torch.equal(one, other)


@pytest.mark.parametrize("position", ["last", "mean", "all", 1])
def test_second_call_runs_nothing_and_returns_the_same(model, runs, position):
    first = collect(model, TEXTS, position=position, cache=True)
    assert len(runs) == 1
    second = collect(tiny_model(), TEXTS, position=position, cache=True, batch_size=2)
    assert len(runs) == 1 and same(first, second)
    exact = collect(model, TEXTS, position=position)
    if position == "all":
        exact, first = exact.acts, first.acts
    assert not torch.equal(exact, first)
    torch.testing.assert_close(first, exact, rtol=2**-11, atol=0)


def test_another_layer_does_not_run_the_others_again(model, runs):
    first = collect(model, TEXTS, [resid_post(0), resid_post(1)], cache=True)
    both = collect(model, TEXTS, [resid_post(1), resid_post(2), resid_post(0)], cache=True)
    assert runs == [[resid_post(0), resid_post(1)], [resid_post(2)]]
    assert list(both) == [resid_post(1), resid_post(2), resid_post(0)]
    assert all(torch.equal(both[name], first[name]) for name in first)


def test_whatever_changes_the_result_changes_the_key(model, folder):
    def files() -> int:
        return len(list(folder.glob("*.safetensors")))

    def swap_rows(model):
        weight = model.blocks[2].mlp.out.weight  # above the hook: even that counts as another model
        weight[[0, 1]] = weight[[1, 0]]

    def nudge_one(model):
        model.blocks[0].ln1.weight[5] += 1e-3

    def shift(model):
        model.embed.weight[[3, 4], [0, 0]] += torch.tensor([0.5, -0.5])

    calls = [
        lambda: collect(model, TEXTS, cache=True),
        lambda: collect(model, TEXTS[:-1], cache=True),
        lambda: collect(model, TEXTS[::-1], cache=True),
        lambda: collect(model, TEXTS, resid_pre(2), cache=True),
        lambda: collect(model, TEXTS, position=-2, cache=True),
        lambda: collect(model, TEXTS, position="mean", cache=True),
        lambda: collect(model, TEXTS, position="mean", skip_first=False, cache=True),
        lambda: collect(model, TEXTS, position="mean", max_norm_ratio=2.0, cache=True),
        lambda: collect(model, TEXTS, position="all", cache=True),
        lambda: collect(tiny_model(1), TEXTS, cache=True),
        lambda: collect(tiny_model().to(torch.bfloat16), TEXTS, cache=True),
    ]
    for change in (swap_rows, nudge_one, shift):
        changed = tiny_model()
        change(changed)
        calls.append(lambda changed=changed: collect(changed, TEXTS, cache=True))
    for number, call in enumerate(calls, start=1):
        call()
        assert files() == number
    for call in calls:
        call()
    assert files() == len(calls)


def test_what_does_not_change_the_result_does_not_change_the_key(model, runs):
    tokens, mask = tokenize(model, TEXTS)
    wider = torch.nn.functional.pad(tokens, (0, 3), value=2), torch.nn.functional.pad(mask, (0, 3))
    collect(model, TEXTS, cache=True)
    collect(model, tokens, mask=mask, cache=True, batch_size=3)
    collect(model, wider[0].int(), mask=wider[1], cache=True)
    collect(model, TEXTS, cache=True, skip_first=False, max_norm_ratio=None)  # not looked at for "last"
    assert len(runs) == 1


def test_results_of_an_edited_model_are_neither_stored_nor_read(model, folder):
    clean = collect(model, TEXTS, cache=True)
    with intervene(model, {resid_post(0): lambda activation, hook: 2 * activation}):
        edited = collect(model, TEXTS, cache=True)
        assert len(list(folder.iterdir())) == 1
    assert relative_error(edited, clean) > 0.1
    assert torch.equal(collect(model, TEXTS, cache=True), clean)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "rubbish"])
def test_a_damaged_file_is_noticed_deleted_and_computed_again(model, folder, runs, capsys, damage):
    first = collect(model, TEXTS, cache=True)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    content = {"flipped": bytes(flipped), "cut": whole[:-7], "empty": b"", "rubbish": b"\xff" * 400}
    file.write_bytes(content[damage])
    assert torch.equal(collect(model, TEXTS, cache=True), first)
    assert len(runs) == 2 and file.read_bytes() == whole
    assert capsys.readouterr().out.count("\n") == 1


def test_the_folder_may_be_deleted_or_be_unusable(model, folder, capsys):
    first = collect(model, TEXTS, cache=True)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("a file where the folder should be")  # works for root as well, unlike permissions
    assert torch.equal(collect(model, TEXTS, cache=True), first)
    assert capsys.readouterr().out.startswith("Not kept in the cache, ")


def test_half_precision_overflows_nowhere():
    scale = torch.logspace(-25, 33, 63)
    acts = torch.randn(63, 50, generator=torch.Generator().manual_seed(0)) * scale[:, None]
    acts[:, 7] = 24_000 * scale  # a row like position 0's
    acts[0] = 0
    back = from_half(to_half({"acts": acts}))["acts"]
    torch.testing.assert_close(back, acts, rtol=2**-11, atol=0)
    assert not acts.half().isfinite().all(), "plain float16 would not do"
