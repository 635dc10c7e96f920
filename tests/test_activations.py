"""Activations: right rows, right masks, batches that change nothing."""

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from utils.activations import TokenActivations, collect_activations, tokenize
from utils.default_model import default_problem
from utils.hooks import HookNameError, attn_out, intervene, resid_post, resid_pre
from utils.models import load_model, tiny_model

TEXTS = [
    "The city of Paris is in France.",
    "true",
    "A dog and a cat.",
    "The key to the cabinets is very bad and the dog is good.",
    "Two dogs.",
]
LENGTHS = [9, 2, 7, 15, 4]  # with BOS; "cat" is unknown to the tiny tokenizer, and one token
NAME = resid_post(1)


@pytest.fixture(scope="module")
def real_model() -> TransformerBridge:
    if default_problem():
        pytest.skip("the model is not in the cache folder")
    return load_model(verbose=False)


@pytest.fixture
def model() -> TransformerBridge:
    return tiny_model()


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path, request):
    """A cache folder of its own for every test (but the model's own stays where it is)."""
    if "real_model" in request.fixturenames:
        request.getfixturevalue("real_model")
    monkeypatch.setenv("PROBE_TO_STEER_CACHE", str(tmp_path))
    return tmp_path / "activations"


def collect(model, inputs, names=NAME, **options):
    return collect_activations(model, inputs, names, **{"cache": False, "progress": False, **options})


def alone(model, text: str, name: str = NAME) -> torch.Tensor:
    """The activations of one text [pos, d_model], from the library."""
    tokens = model.to_tokens(text)
    return model.run_with_cache(tokens, names_filter=name)[1][name][0]


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((actual - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def test_tokenize(model):
    tokens, mask = tokenize(model, TEXTS)
    assert tokens.shape == mask.shape == (5, 15) and mask.sum(1).tolist() == LENGTHS
    assert (tokens[:, 0] == model.tokenizer.bos_token_id).all()
    assert (tokens[~mask] == model.tokenizer.pad_token_id).all()
    for row, length, text in zip(tokens, LENGTHS, TEXTS):
        assert torch.equal(row[:length], model.to_tokens(text)[0])


def test_mask_is_right_where_the_padding_token_is_also_real(model):
    model.tokenizer.pad_token = "."
    assert tokenize(model, TEXTS)[1].sum(1).tolist() == LENGTHS


def test_no_second_bos(model):
    tokens, mask = tokenize(model, ["<|bos|> The city", "The city"])
    assert tokens.tolist() == [[0, 7, 11], [0, 7, 11]] and mask.all()


def test_a_long_text_is_cut_in_silence_by_the_library(model):
    text = "city " * 96
    assert model.to_tokens(text).shape == (1, 96), "the library is silent"
    with pytest.raises(ValueError, match="text 1 has 97 tokens with BOS.*holds 96"):
        tokenize(model, ["city", text])
    assert tokenize(model, ["city " * 95])[1].all()


def test_an_empty_text_is_taken_in_silence_by_the_library(model):
    assert model.to_tokens("").shape == (1, 1), "the library is silent"


@pytest.mark.parametrize(
    "texts, error, message",
    [
        ([], ValueError, "no texts"),
        (["true", ""], ValueError, "text 1 is empty"),
        ("true", TypeError, "put the single text in a list"),
        (["true", 3], TypeError, "text 1 is of type int"),
    ],
)
def test_texts_that_are_refused(model, texts, error, message):
    for function in (tokenize, collect):
        with pytest.raises(error, match=message):
            function(model, texts)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("name", [resid_pre(0), attn_out(2), resid_post(2)])
def test_rows_equal_those_of_each_text_alone(model, name, batch_size):
    expected = [alone(model, text, name) for text in TEXTS]
    for position, pick in {"last": -1, "first": 0, 1: 1, -2: -2}.items():
        acts = collect(model, TEXTS, name, position=position, batch_size=batch_size)
        assert acts.shape == (5, 24) and acts.dtype == torch.float32
        assert relative_error(acts, torch.stack([text[pick] for text in expected])) < 1e-4
    acts = collect(model, TEXTS, name, position="mean", max_norm_ratio=None, batch_size=batch_size)
    assert relative_error(acts, torch.stack([text[1:].mean(0) for text in expected])) < 1e-4
    every = collect(model, TEXTS, name, position="all", max_norm_ratio=None, batch_size=batch_size)
    assert relative_error(every.acts, torch.cat([text[1:] for text in expected])) < 1e-4


def test_all_says_where_each_row_comes_from(model):
    tokens, _ = tokenize(model, TEXTS)
    every = collect(model, TEXTS, position="all", skip_first=False, max_norm_ratio=None, batch_size=2)
    assert isinstance(every, TokenActivations)
    assert every.text.tolist() == [i for i, length in enumerate(LENGTHS) for _ in range(length)]
    assert every.position.tolist() == [at for length in LENGTHS for at in range(length)]
    assert torch.equal(every.token, tokens[every.text, every.position])
    assert every.acts.shape == (sum(LENGTHS), 24)


def test_one_name_gives_a_tensor_several_a_dictionary(model):
    names = [resid_post(2), resid_pre(0)]
    several = collect(model, TEXTS, names)
    assert list(several) == names
    for name in names:
        assert torch.equal(several[name], collect(model, TEXTS, name))
    assert list(collect(model, TEXTS, [NAME])) == [NAME]


def test_tokens_instead_of_texts(model):
    tokens, mask = tokenize(model, TEXTS)
    assert torch.equal(collect(model, tokens, mask=mask), collect(model, TEXTS))
    assert torch.equal(collect(model, tokens[:2, :2]), collect(model, tokens[:2, :2].int()))


def test_padding_is_never_taken_for_the_last_token(model):
    tokens, mask = tokenize(model, TEXTS)
    cache = model.run_with_cache(tokens, names_filter=NAME)[1]
    last = torch.stack([alone(model, text)[-1] for text in TEXTS])
    assert relative_error(cache[NAME][:, -1], last) > 0.1, "the library is silent"
    with pytest.raises(ValueError, match="row 0 of the tokens ends in the padding token. Pass mask="):
        collect(model, tokens)
    assert collect(model, tokens, mask=torch.ones_like(mask)).shape == (5, 24)


def test_half_precision_models_give_float32(model):
    model = model.to(torch.bfloat16)
    for position in ("last", "mean"):
        assert collect(model, TEXTS, position=position).dtype == torch.float32


def expected_kept(norms: torch.Tensor, ratio: float) -> list[int]:
    """Positions that the masks leave of one text, spelled out."""
    others = sorted(norms[1:].tolist())
    median = others[(len(others) - 1) // 2]
    return [at for at in range(1, len(norms)) if norms[at] <= ratio * median]


@pytest.mark.parametrize("ratio", [1.05, 1.3])
def test_norm_mask(model, ratio):
    texts = [alone(model, text) for text in TEXTS]
    kept = [expected_kept(text.norm(dim=-1), ratio) for text in texts]
    assert sum(map(len, kept)) < sum(LENGTHS) - len(LENGTHS), "the case masks something"
    every = collect(model, TEXTS, position="all", max_norm_ratio=ratio, batch_size=2)
    assert list(zip(every.text.tolist(), every.position.tolist())) == [
        (i, at) for i, text in enumerate(kept) for at in text
    ]
    mean = collect(model, TEXTS, position="mean", max_norm_ratio=ratio, batch_size=2)
    for i, text in enumerate(kept):
        torch.testing.assert_close(mean[i], texts[i][text].mean(0))


def test_an_outlier_is_left_out_of_mean_and_all_and_of_nothing_else(model):
    def outlier(activation, hook):
        activation[:, 3] *= 100
        return activation

    texts = [TEXTS[0], TEXTS[3]]
    with intervene(model, {NAME: outlier}):
        every = collect(model, texts, position="all")
        mean = collect(model, texts, position="mean")
        assert collect(model, texts, position=3).norm(dim=1).min() > 100
        unmasked = collect(model, texts, position="mean", max_norm_ratio=None)
    assert 3 not in every.position and 2 in every.position and 0 not in every.position
    for i in range(2):
        torch.testing.assert_close(mean[i], every.acts[every.text == i].mean(0))
    assert relative_error(unmasked, mean) > 3


def test_masks_are_taken_at_each_hook_point_by_itself(model):
    both = collect(model, TEXTS, [resid_pre(0), NAME], position="all", max_norm_ratio=1.05)
    for name in (resid_pre(0), NAME):
        one = collect(model, TEXTS, name, position="all", max_norm_ratio=1.05)
        assert torch.equal(one.position, both[name].position) and torch.equal(one.acts, both[name].acts)
    assert len(both[NAME].acts) != len(both[resid_pre(0)].acts)


def test_the_other_texts_do_not_matter(model):
    together = collect(model, TEXTS, position="mean", max_norm_ratio=1.1)
    apart = torch.cat([collect(model, [text], position="mean", max_norm_ratio=1.1) for text in TEXTS])
    torch.testing.assert_close(together, apart)


def test_masks_that_leave_nothing(model):
    bos_only = torch.tensor([[0]])
    with pytest.raises(ValueError, match="leave no token of text 0"):
        collect(model, bos_only, position="mean")
    with pytest.raises(ValueError, match="leave no token of any text"):
        collect(model, bos_only, position="all")
    assert collect(model, bos_only, position="mean", skip_first=False, max_norm_ratio=None).shape == (1, 24)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"position": "middle"}, "'last', 'first', 'mean', 'all'"),
        ({"position": 2}, "text 1 has no token at position 2: it has 2 tokens"),
        ({"position": -3}, "text 1 has no token at position -3"),
        ({"batch_size": 0}, "batch_size"),
        ({"mask": torch.ones(5, 15, dtype=torch.bool)}, "texts bring their own"),
        ({"names": "blocks.1.attn.hook_pattern"}, r"\[batch, pos, d_model\]: use run_with_cache"),
    ],
)
def test_options_that_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        collect(model, TEXTS, **options)


def test_a_position_that_is_no_whole_number(model):
    with pytest.raises(TypeError):
        collect(model, TEXTS, position=1.5)


def test_misspelt_name(model):
    with pytest.raises(HookNameError, match="Nearest"):
        collect(model, TEXTS, "blocks.1.hook_ouy")


def test_tokens_and_masks_that_are_refused(model):
    tokens, mask = tokenize(model, TEXTS)
    for wrong, message in [
        (mask[:, :-1], r"\[5, 15\] like the tokens"),
        (mask.long(), "of booleans"),
        (mask.flip(1), "real tokens must come first"),
        (mask & (torch.arange(5) != 2)[:, None], "row 2 of the mask has no real token"),
    ]:
        with pytest.raises(ValueError, match=message):
            collect(model, tokens, mask=wrong)
    for wrong in (tokens[0], tokens.float(), tokens + 60):
        with pytest.raises(ValueError):
            collect(model, wrong)


def test_nan_is_never_collected(model):
    model.blocks[1].attn.v.weight[0, 0] = torch.nan
    assert collect(model, TEXTS, resid_post(0)).isfinite().all()
    with pytest.raises(ValueError, match=r"blocks\.1\.hook_out is NaN or infinite in text 3"):
        collect(model, TEXTS, batch_size=1)


def test_no_bar_for_a_short_run(model, capsys):
    collect_activations(model, TEXTS, NAME, cache=False)
    assert capsys.readouterr().err == ""


def test_real_model_padded_batches_equal_single_texts(real_model):
    texts = ["The city of Lagos is in Nigeria.", "It is not true.", "Two hundred years ago, most people lived on farms."]
    names = [resid_post(5), resid_post(28)]
    for position in ("last", "mean", "first"):
        batch = collect(real_model, texts, names, position=position)
        single = [collect(real_model, [text], names, position=position) for text in texts]
        for name in names:
            assert relative_error(batch[name], torch.cat([one[name] for one in single])) < 1e-4


def test_real_model_first_token_is_an_outlier_and_survives_half_precision(real_model, folder):
    text = ["The city of Lagos is in Nigeria."]
    exact = collect(real_model, text, resid_post(14), position="first")
    assert exact.norm() > 10_000
    torch.testing.assert_close(collect(real_model, text, resid_post(14), position="first", cache=True), exact, rtol=2**-11, atol=0)
    every = collect(real_model, text, resid_post(14), position="all", skip_first=False)
    assert 0 not in every.position and every.acts.norm(dim=1).max() < 1000


def test_real_model_chat_text_gets_one_bos(real_model):
    chat = real_model.tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    tokens, mask = tokenize(real_model, [chat, "Hello"])
    assert real_model.to_tokens(chat)[0, :2].tolist() == [1, 1], "the library is silent: two BOS"
    assert (tokens[:, 0] == 1).all() and (tokens[:, 1] != 1).all() and mask[1].sum() == 2
