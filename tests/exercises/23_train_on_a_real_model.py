"""The exercises of chapter 23: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from utils.course.battery import ALL_COUNTS, NOT_TRAINED, NO_MATRIX, NO_THRESHOLD
from utils.course.cases import close_to, integers, normal, tiny, token_rows, uniform, wrong_ways
from utils.course.exercises import Case, Exercise
from utils.hooks import intervene, resid_post, run_with_cache


# --- chunk_documents ---------------------------------------------------------------------------------------


def _chunk_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lengths: list[int], context: int, bos: int) -> Case:
        drawn = [integers(rng, 10, 99, n).tolist() for n in lengths]
        return Case(label, drawn, context, bos)

    yield case("documents of 9, 2, 7 and 11 tokens, rows of 5", [9, 2, 7, 11], 5, 1)
    yield case("one that fills its rows exactly, rows of 4", [6, 1, 9, 5], 4, 3)
    yield Case("no document fills a row", [[5, 6], [7]], 4, 0)
    yield case("an empty document, one exactly full, one a token short", [0, 4, 3], 5, 2).of("boundary")
    yield Case("no documents", [], 3, 0).of("extreme")
    yield case("rows of two tokens", [3, 1], 2, 7).of("extreme")


chunk_documents = Exercise(
    "chunk_documents",
    ends={"context": lambda a: (2, max(map(len, a["documents"])) + 1), "bos": lambda a: (0, 99)},
    without={**NOT_TRAINED, **ALL_COUNTS, **NO_MATRIX, "scale": "tokens have no scale", "negative": "tokens are never negative"},
    difficulty=2,
    importance=4,
    minutes=12,
    learn="How running text becomes training rows, and why every row has to remember its document.",
    cases=_chunk_cases,
    hints=(
        "A row has one place less for text than it has tokens, since the start token takes the first. How many whole rows does a "
        "document of 9 tokens fill, if a row has 5?",
        "Say `width = context - 1`. For one document, write down where its rows start before you write the loop over documents: for 8, for 9 "
        "and for 3 tokens, if `width` is 4. Which `range` gives these, and where does it end?",
        "Collect rows and owners in two lists. An empty list of rows becomes a tensor of shape [0]: which `view` makes it [0, context] and leaves "
        "the others as they are?",
    ),
    verified="documents that end inside a row, that fill their rows exactly and that are too short for one; the empty result.",
    next="count the rows per document: is one book worth a hundred speeches?",
)


def _rows(documents, context, bos, *, step=None, last=1, number=None):
    width = context - 1
    rows, owner, met = [], [], 0
    for i, ids in enumerate(documents):
        starts = range(0, len(ids) - width + last, step or width)
        rows += [[bos, *ids[s : s + width]] for s in starts]
        owner += [met if number else i] * len(starts)
        met += bool(len(starts))
    return torch.tensor(rows).long().view(-1, context), torch.tensor(owner).long()


@chunk_documents.mistake(
    "one-long-stream",
    "You joined the documents and cut the stream: some rows begin in one document and end in another. Hold one document out, and a part of it "
    "is in the training rows of its neighbour.",
)
def _(documents, context, bos):
    width = context - 1
    stream = [(t, i) for i, ids in enumerate(documents) for t in ids]
    rows = [stream[s : s + width] for s in range(0, len(stream) - width + 1, width)]
    return torch.tensor([[bos, *(t for t, _ in row)] for row in rows]).long().view(-1, context), torch.tensor([row[0][1] for row in rows]).long()


@chunk_documents.mistake("start-token-not-counted", "Your rows have one token too many: `context` counts the start token as well.")
def _(documents, context, bos):
    return _rows(documents, context + 1, bos)


@chunk_documents.mistake("no-start-token", "Your rows lack the start token. The first token of a row is then a word, and that word becomes the attention sink.")
def _(documents, context, bos):
    rows = [(ids[s : s + context], i) for i, ids in enumerate(documents) for s in range(0, len(ids) - context + 1, context)]
    return torch.tensor([row for row, _ in rows]).long().view(-1, context), torch.tensor([i for _, i in rows]).long()


@chunk_documents.mistake(
    "start-token-once-per-document",
    "Only the first row of a document begins with the start token. The model sees each row by itself, so each needs its own.",
)
def _(documents, context, bos):
    rows = [([bos, *ids][s : s + context], i) for i, ids in enumerate(documents) for s in range(0, len(ids) + 1 - context + 1, context)]
    return torch.tensor([row for row, _ in rows]).long().view(-1, context), torch.tensor([i for _, i in rows]).long()


@chunk_documents.mistake("rest-padded", "You kept the last, incomplete rows and padded them. An activation on padding is no activation of text; drop the rest.")
def _(documents, context, bos):
    width = context - 1
    rows = [(ids[s : s + width], i) for i, ids in enumerate(documents) for s in range(0, len(ids), width)]
    return torch.tensor([[bos, *row, *[bos] * (width - len(row))] for row, _ in rows]).view(-1, context), torch.tensor([i for _, i in rows])


@chunk_documents.mistake("token-lost-between-rows", "Between two rows of a document one token is missing: you advance by `context`, and a row holds one text token less.")
def _(documents, context, bos):
    return _rows(documents, context, bos, step=context)


@chunk_documents.mistake("rows-overlap", "The last token of a row is the first of the next one: you advance by one too few. Twice the same token counts double.")
def _(documents, context, bos):
    return _rows(documents, context, bos, step=max(1, context - 2))


wrong_ways(chunk_documents, _rows, {
    "exact-fit-dropped": ({"last": 0}, "A document that fills its rows exactly loses its last one. Check the end of your range."),
    "owners-renumbered": ({"number": True},
        "You number only the documents that fill a row. `owner` is the index in `documents`: after a short document your numbers point at the wrong text."),
})


@chunk_documents.variant
def _(documents, context, bos):
    """Whole rows by reshaping."""
    width, rows, owner = context - 1, [torch.empty(0, context, dtype=torch.long)], [torch.empty(0, dtype=torch.long)]
    for i, ids in enumerate(documents):
        full = len(ids) // width
        body = torch.tensor(ids[: full * width], dtype=torch.long).view(full, width)
        rows.append(torch.cat([torch.full((full, 1), bos), body], 1))
        owner.append(torch.full((full,), i))
    return torch.cat(rows), torch.cat(owner)


@chunk_documents.variant
def _(documents, context, bos):
    """unfold."""
    parts = [torch.tensor(ids).long().unfold(0, context - 1, context - 1) if len(ids) >= context - 1 else torch.empty(0, context - 1).long() for ids in documents]
    counts = torch.tensor([len(p) for p in parts], dtype=torch.long)
    return F.pad(torch.cat([torch.empty(0, context - 1).long(), *parts]), (1, 0), value=bos), torch.arange(len(parts)).repeat_interleave(counts)


@chunk_documents.variant
def _(documents, context, bos):
    """A while loop that eats the document."""
    rows, owner = [], []
    for i, ids in enumerate(documents):
        left = list(ids)
        while len(left) >= context - 1:
            rows.append([bos] + left[: context - 1])
            left = left[context - 1 :]
            owner.append(i)
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), context), torch.tensor(owner, dtype=torch.int64)


# --- usual_token_mask --------------------------------------------------------------------------------------


def _mask_cases(rng: torch.Generator) -> Iterator[Case]:
    def drawn(label: str, batch: int, pos: int, d: int, ratio: float, dtype: torch.dtype) -> Case:
        # Rows on very different scales, so that a limit from another row shows.
        size = torch.tensor([1.0, 8.0, 60.0])[torch.randperm(3, generator=rng)][:batch, None, None]
        direction = F.normalize(normal(rng, batch, pos, d), dim=-1)
        norms = 1 + uniform(rng, batch, pos, 1)
        norms[:, 0] *= 40  # the first token
        for row in range(batch):
            norms[row, 1 + int(integers(rng, 0, pos - 1, 1))] *= 20
        return Case(label, (direction * norms * size).to(dtype), ratio)

    yield drawn("3 rows of 8 tokens, 5 dimensions", 3, 8, 5, 3.0, torch.float64)
    yield drawn("2 rows of 10 tokens, 7 dimensions, float32", 2, 10, 7, 4.0, torch.float32)
    # Lengths 5 s, exact in floating point: at the limit, just above it, and a first token that is small.
    scale = torch.tensor([[1.0, 2.0, 6.0, 2.0, 7.0, 2.0, 1.0, 20.0], [9.0, 1.0, 1.0, 3.0, 3.5, 1.0, 1.0, 2.5]], dtype=torch.float64)
    yield Case("a token exactly at the limit", scale[..., None] * torch.tensor([3.0, 4.0], dtype=torch.float64), 3.0)
    # The median length is 4 without the first token and 2 with it: the 8 is usual or not.
    scale = torch.tensor([[1.0, 1.0, 1.0, 4.0, 4.0, 8.0, 2.0, 4.0]], dtype=torch.float64)
    yield Case("a small first token", scale[..., None] * torch.tensor([3.0, 4.0], dtype=torch.float64), 3.0)
    yield Case("rows of two tokens", torch.tensor([[[9.0], [1.0]], [[0.0], [-2.0]]], dtype=torch.float64), 1.0).of("extreme")
    yield Case("one just above the limit", torch.tensor([[[9.0], [2.0], [2.0], [6.000001]]], dtype=torch.float64), 3.0).of("boundary")
    sizes = torch.tensor([[[9.0], [2.0], [2.0], [2.5], [3.5], [-2.0]], [[1.0], [4.0], [1.9], [4.0], [6.5], [2.0]]], dtype=torch.float64)
    yield Case("one and a half times the median", sizes, 1.5)
    yield Case("half the median", sizes, 0.5).of("extreme")
    first = torch.tensor([[[torch.nan]], [[torch.inf]]], dtype=torch.float64)
    yield Case("first tokens that are no numbers", torch.cat([first, sizes[:, 1:]], 1), 1.5).of("nan")


usual_token_mask = Exercise(
    "usual_token_mask",
    without=NOT_TRAINED,
    difficulty=2,
    importance=5,
    minutes=10,
    learn="How to find the few tokens that would otherwise be all that your SAE learns.",
    cases=_mask_cases,
    hints=(
        "Three steps: the length of every activation, a limit for every row, a comparison. The first token takes part in neither the limit nor "
        "the result.",
        "Print `acts.norm(dim=-1).shape`. Over which of its two axes is the median taken, and what must be kept so that it broadcasts against "
        "all tokens of its row?",
        "The median belongs to the lengths without column 0, one number a row, kept as a column. What does `<` say about a token exactly at the limit?",
    ),
    verified="rows on very different scales, unusual tokens in the middle, a token exactly at the limit, a small first token.",
    next="how many tokens does it take away, and how much of the squared norm?",
)


def _usual(acts, ratio, *, limit=None, first=False, strict=False, norms=None):
    norms = acts.norm(dim=-1) if norms is None else norms
    limit = ratio * norms[:, 1:].median(1, keepdim=True).values if limit is None else limit
    usual = norms < limit if strict else norms <= limit
    if not first:
        usual[:, 0] = False
    return usual


@usual_token_mask.mistake("first-token-kept", "Position 0 is still there where it happens to be small enough. The first token is left out whatever its length.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, first=True)


@usual_token_mask.mistake("one-limit-for-all-rows", "You took one median over all rows. A row of quiet text then loses nothing, and a row of loud text everything: each row has its own limit.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, limit=max_norm_ratio * acts.norm(dim=-1)[:, 1:].median())


@usual_token_mask.mistake("mean-for-median", "Your limit comes from the mean. The outliers that you want to find have moved it: that is why the median is asked for.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, limit=max_norm_ratio * acts.norm(dim=-1)[:, 1:].mean(1, keepdim=True))


@usual_token_mask.mistake("squared-lengths", "You compared squared lengths with 3 times their median: that is a ratio of the square root of 3 in length.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, norms=acts.square().sum(-1))


@usual_token_mask.mistake("limit-is-the-median", "You compared with the median itself. Half of all tokens are longer than that; the ratio is missing.")
def _(acts, max_norm_ratio):
    return _usual(acts, 1.0)


@usual_token_mask.mistake("limit-excluded", "A token exactly at the limit is usual: compare with <=.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, strict=True)


@usual_token_mask.mistake("first-token-in-the-median", "The first token took part in the median. It is the one token whose length tells nothing about its row.")
def _(acts, max_norm_ratio):
    return _usual(acts, max_norm_ratio, limit=max_norm_ratio * acts.norm(dim=-1).median(1, keepdim=True).values)


@usual_token_mask.mistake("unusual-tokens-marked", "True and False are exchanged: the mask is True where a token may be used.")
def _(acts, max_norm_ratio):
    return ~_usual(acts, max_norm_ratio)


@usual_token_mask.variant
def _(acts, max_norm_ratio):
    """A loop over rows and NumPy's median."""
    rows = []
    for row in acts:
        norms = row.square().sum(-1).sqrt()
        keep = norms <= max_norm_ratio * torch.tensor(np.median(norms[1:].numpy()), dtype=acts.dtype)
        rows.append(torch.cat([torch.tensor([False]), keep[1:]]))
    return torch.stack(rows)


@usual_token_mask.variant
def _(acts, max_norm_ratio):
    """quantile."""
    norms = torch.linalg.vector_norm(acts, dim=2)
    return (norms <= max_norm_ratio * norms[:, 1:].quantile(0.5, dim=1)[:, None]) & (torch.arange(acts.shape[1]) > 0)


@usual_token_mask.variant
def _(acts, max_norm_ratio):
    """nanmedian with the first token masked."""
    norms = acts.norm(dim=-1)
    others = norms.clone()
    others[:, 0] = torch.nan
    keep = ~(norms > max_norm_ratio * others.nanmedian(dim=1, keepdim=True).values)
    keep[:, :1] = False
    return keep


# --- fold_normalisation ------------------------------------------------------------------------------------


def _fold_cases(rng: torch.Generator) -> Iterator[Case]:
    for d_in, d_sae, scale, dtype in ((4, 7, 2.5, torch.float64), (5, 3, 0.3, torch.float32)):
        params = {"W_enc": normal(rng, d_in, d_sae, dtype=dtype), "b_enc": normal(rng, d_sae, dtype=dtype), "W_dec": normal(rng, d_sae, d_in, dtype=dtype),
                  "b_dec": 1 + normal(rng, d_in, dtype=dtype)}
        yield Case(f"{d_sae} latents, {d_in} dimensions, scale {scale}", params, 3 + normal(rng, d_in, dtype=dtype), scale)
    one = {"W_enc": normal(rng, 1, 1), "b_enc": normal(rng, 1), "W_dec": normal(rng, 1, 1), "b_dec": normal(rng, 1)}
    yield Case("one latent, nothing to fold", one, torch.zeros(1, dtype=torch.float64), 1.0).of("extreme")


fold_normalisation = Exercise(
    "fold_normalisation",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=4,
    minutes=15,
    learn="Why an SAE that was trained on normalised activations need not be shipped with its mean and its scale.",
    cases=_fold_cases,
    hints=(
        "Write z_hat * scale + mean with f W_dec + b_dec in place of z_hat. Which factor can be moved into the latents, and what is left over?",
        "In the encoder, multiply the whole bracket by `scale`: (z - b_dec) becomes x minus something. What is that something, and what "
        "happens to b_enc?",
        "The something is the new `b_dec`, and the decoder needs the same one: check that with the formula of the docstring. Then ask what multiplying the bracket has done to `b_enc`.",
    ),
    verified="both biases, untouched matrices, scales above and below 1, an input that is left as it was.",
    next="why may TopK be left alone? Because multiplying all latents of a token by a positive number changes none of their ranks.",
)


def _folded(params, b_enc, b_dec, W_enc=None, W_dec=None):
    return {"W_enc": params["W_enc"].clone() if W_enc is None else W_enc, "b_enc": b_enc, "W_dec": params["W_dec"].clone() if W_dec is None else W_dec, "b_dec": b_dec}


@fold_normalisation.mistake("encoder-bias-forgotten", "b_enc is as it was. Beside latents that are `scale` times larger it is too small: other latents win the TopK.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"].clone(), params["b_dec"] * scale + mean)


@fold_normalisation.mistake("mean-scaled-too", "You added the mean before you multiplied by the scale. The mean is in the units of x already.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"] * scale, (params["b_dec"] + mean) * scale)


@fold_normalisation.mistake("divided-for-multiplied", "You divided by the scale. Normalising divided; going back multiplies.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"] / scale, params["b_dec"] / scale + mean)


@fold_normalisation.mistake("mean-forgotten", "The mean never came back: what the SAE writes is centred at the wrong place.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"] * scale, params["b_dec"] * scale)


@fold_normalisation.mistake("mean-subtracted", "You took the mean off instead of putting it back.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"] * scale, params["b_dec"] * scale - mean)


@fold_normalisation.mistake(
    "scale-put-into-the-matrices",
    "It computes the same function: you shrank the encoder and stretched the decoder. The decoder's rows then have lost their length of 1, and a latent's value is no "
    "longer a length in the units of x. The specification leaves both matrices alone.",
)
def _(params, mean, scale):
    return _folded(params, params["b_enc"].clone(), params["b_dec"] * scale + mean, params["W_enc"] / scale, params["W_dec"] * scale)


@fold_normalisation.mistake("decoder-stretched-too", "You scaled the biases and the decoder's rows as well: the scale acts twice.")
def _(params, mean, scale):
    return _folded(params, params["b_enc"] * scale, params["b_dec"] * scale + mean, W_dec=params["W_dec"] * scale)


@fold_normalisation.variant
def _(params, mean, scale):
    """A copied dict, changed."""
    new = {name: value.clone() for name, value in params.items()}
    new["b_enc"] *= scale
    new["b_dec"] = mean + scale * new["b_dec"]
    return new


@fold_normalisation.variant
def _(params, mean, scale):
    """torch.add with a factor; matrices copied."""
    return {name: value.clone() for name, value in params.items()} | {"b_enc": params["b_enc"].mul(scale), "b_dec": torch.add(mean, params["b_dec"], alpha=scale)}


@fold_normalisation.variant
def _(params, mean, scale):
    """lerp in disguise, one entry at a time."""
    b_dec = torch.stack([m + b * scale for m, b in zip(mean, params["b_dec"])])
    return _folded(params, torch.stack([b * scale for b in params["b_enc"]]), b_dec)


# --- variance_explained ------------------------------------------------------------------------------------


def _variance_cases(rng: torch.Generator) -> Iterator[Case]:
    for n, d, dtype in ((9, 4, torch.float64), (6, 11, torch.float32)):
        # Dimensions and rows of different sizes, far from the origin, and a reconstruction that is off to one side.
        x = 5 + normal(rng, n, d) * torch.linspace(0.5, 3, d, dtype=torch.float64) * torch.linspace(0.7, 2, n, dtype=torch.float64)[:, None]
        x_hat = x + 0.4 * normal(rng, n, d) + 0.2
        yield Case(f"{n} rows, {d} dimensions", x.to(dtype), x_hat.to(dtype))
    x = normal(rng, 5, 3)
    yield Case("worse than the mean", x, -4 * x).of("extreme")
    yield Case("perfect", x, x.clone()).of("extreme")
    far = 1e7 + normal(rng, 6, 3)
    yield Case("very far from 0", far, far + 0.4 * normal(rng, 6, 3)).of("extreme")


variance_explained = Exercise(
    "variance_explained",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=12,
    learn="Three numbers that papers call explained variance, and where they part.",
    cases=_variance_cases,
    hints=(
        "Make two tables of the shape of x first: the squared errors, and the squared distances from the mean activation. All three numbers come "
        "from those two tables.",
        "Print `x.mean(0).shape`. Then say for each of the three: which axis is summed before the division, and how many quotients are there?",
        "The first has one quotient, the second d_model, the third n. Where there are several quotients they are averaged after the division, and 1 minus may come before or after.",
    ),
    verified="rows and dimensions of unequal sizes, activations far from the origin, a reconstruction with an offset.",
    next="give it the activations with position 0 left in: which of the three notices?",
)


def _variances(x, x_hat, *, centre=None, error=None, power=2):
    error = (x - x_hat).abs().pow(power) if error is None else error
    variance = (x - (x.mean(0) if centre is None else centre)).abs().pow(power)
    return ((1 - error.sum() / variance.sum()).item(), (1 - error.sum(0) / variance.sum(0)).mean().item(), (1 - error.sum(1) / variance.sum(1)).mean().item())


@variance_explained.mistake("mean-left-in", "You divided by the squared length of x, not by its distance from the mean. What the mean alone explains then counts as yours.")
def _(x, x_hat):
    return _variances(x, x_hat, centre=0)


@variance_explained.mistake("axes-exchanged", "The second and the third number are exchanged: summing over axis 0 sums over rows, and leaves one number per dimension.")
def _(x, x_hat):
    a, b, c = _variances(x, x_hat)
    return a, c, b


@variance_explained.mistake("one-mean-for-everything", "You took off a single number, the mean of all entries. Each dimension has its own mean.")
def _(x, x_hat):
    return _variances(x, x_hat, centre=x.mean())


@variance_explained.mistake("offset-forgiven", "You took the *variance* of the error: a reconstruction that is always off by the same vector pays nothing for it. Square the error as it is.")
def _(x, x_hat):
    error = x - x_hat
    return _variances(x, x_hat, error=(error - error.mean(0)).square())


@variance_explained.mistake("mean-of-the-reconstruction", "The variance is measured from the mean of x_hat. It belongs to the activations and must not depend on who reconstructs them.")
def _(x, x_hat):
    return _variances(x, x_hat, centre=x_hat.mean(0))


@variance_explained.mistake("absolute-errors", "You added absolute values. Variance is about squares.")
def _(x, x_hat):
    return _variances(x, x_hat, power=1)


@variance_explained.mistake("unexplained", "You returned the share that is *not* explained: 1 minus is missing.")
def _(x, x_hat):
    return tuple(1 - v for v in _variances(x, x_hat))


@variance_explained.mistake("pooled-three-times", "All three are the first one: averaging numerators and denominators before dividing is the same as summing them.")
def _(x, x_hat):
    return (_variances(x, x_hat)[0],) * 3


@variance_explained.variant
def _(x, x_hat):
    """From torch.var, whose correction cancels."""
    total = x.var(0, correction=0)
    error = (x - x_hat).pow(2)
    rows = [1 - e / v for e, v in zip(error.sum(1), (x - x.mean(0)).pow(2).sum(1))]
    return float(1 - error.mean(0).sum() / total.sum()), float((1 - error.mean(0) / total).mean()), float(sum(rows) / len(rows))


@variance_explained.variant
def _(x, x_hat):
    """NumPy."""
    a, b = x.numpy(), x_hat.numpy()
    e, v = (a - b) ** 2, (a - a.mean(0)) ** 2
    return float(1 - e.sum() / v.sum()), float(np.mean(1 - e.sum(0) / v.sum(0))), float(np.mean(1 - e.sum(1) / v.sum(1)))


@variance_explained.variant
def _(x, x_hat):
    """einsum."""
    e, c = x - x_hat, x - x.mean(dim=0, keepdim=True)
    whole = 1 - torch.einsum("nd,nd->", e, e) / torch.einsum("nd,nd->", c, c)
    columns = 1 - torch.einsum("nd,nd->d", e, e) / torch.einsum("nd,nd->d", c, c)
    rows = 1 - torch.einsum("nd,nd->n", e, e) / torch.einsum("nd,nd->n", c, c)
    return whole.item(), columns.mean().item(), rows.mean().item()


# --- firing_statistics -------------------------------------------------------------------------------------


def _firing_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, d_sae: int, dtype: torch.dtype) -> Case:
        chance = torch.rand(d_sae, generator=rng) ** 3
        latents = torch.rand(n, d_sae, generator=rng).to(dtype) * 5 * (torch.rand(n, d_sae, generator=rng) < chance)
        latents[:, 1] = 0  # a dead one
        latents[: n // 10, 3], latents[n // 10 :, 3] = 0.7, 0  # exactly a tenth
        latents[:, 4], latents[0, 4] = 0, 0.001  # alive, and faint
        latents[:, 5] = 0.02  # always on, and faint
        return Case(label, latents)

    yield case("40 tokens, 9 latents", 40, 9, torch.float64)
    yield case("30 tokens, 13 latents, float32", 30, 13, torch.float32)
    tenth = torch.zeros(20, 3, dtype=torch.float64)
    tenth[:2, 0], tenth[:3, 1] = 1e-30, 1e-30
    yield Case("exactly a tenth, and one token more, both faint", tenth).of("boundary")
    yield Case("one token, nothing fires", torch.zeros(1, 4, dtype=torch.float64)).of("extreme")
    yield Case("four tokens, of which none, one or all fire", torch.tensor([[0.0, 2.0, 1.0]] + [[0.0, 0.0, 1.0]] * 3, dtype=torch.float64)).of("extreme")


firing_statistics = Exercise(
    "firing_statistics",
    without={**NOT_TRAINED, **ALL_COUNTS, "negative": "latents are 0 or more"},
    difficulty=1,
    importance=4,
    minutes=8,
    learn="L0, dead and dense latents: the three counts that stand beside every explained variance.",
    cases=_firing_cases,
    hints=(
        "How strongly a latent fires does not matter here. Which one comparison turns the values into what does?",
        "`fires = latents > 0` is [n, d_sae]. A sum over which axis counts the latents of a token, and over which the tokens of a latent?",
        "`l0` is the mean of one of those sums. `dead` and `dense` are means over latents of a comparison, one with 0 and one with a tenth of the tokens.",
    ),
    verified="dead and always-on latents, faint ones, one that fires on exactly a tenth of the tokens.",
    next="a latent that never fires on a thousand tokens may fire on the next: how many tokens would you want to see?",
)


def _counts(latents):
    return (latents > 0).sum(0), len(latents), latents.shape[1]


@firing_statistics.mistake("sizes-averaged", "`frequency` holds average values. It asks how often a latent fires, not how strongly.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), latents.float().mean(0), (counts == 0).double().mean().item(), (10 * counts > n).double().mean().item()


@firing_statistics.mistake("share-for-number", "`l0` is a share of all latents. It is a number of latents: with k = 32 it cannot be above 32, and it is not below 1 either.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).double().mean().item(), counts.float() / n, (counts == 0).double().mean().item(), (10 * counts > n).double().mean().item()


@firing_statistics.mistake("tokens-per-latent", "Your `l0` counts the tokens per latent. It asks for the latents per token: the other axis.")
def _(latents):
    counts, n, d = _counts(latents)
    return counts.double().mean().item(), counts.float() / n, (counts == 0).double().mean().item(), (10 * counts > n).double().mean().item()


@firing_statistics.mistake("numbers-for-shares", "`dead` and `dense` are numbers of latents. Asked for are shares of all latents.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), counts.float() / n, float((counts == 0).sum()), float((10 * counts > n).sum())


@firing_statistics.mistake("a-tenth-is-dense", "A latent on exactly a tenth of the tokens is not dense: the limit itself is left out.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), counts.float() / n, (counts == 0).double().mean().item(), (10 * counts >= n).double().mean().item()


@firing_statistics.mistake("faint-counts-as-dead", "You called latents dead that fire, only faintly. Any value above 0 is alive.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), counts.float() / n, (latents.mean(0) < 0.01).double().mean().item(), (10 * counts > n).double().mean().item()


@firing_statistics.mistake("dense-among-the-living", "You divided the dense latents by the living ones. Both shares are of all latents.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), counts.float() / n, (counts == 0).double().mean().item(), (10 * counts > n)[counts > 0].double().mean().item()


@firing_statistics.mistake("counts-for-frequency", "`frequency` holds counts of tokens. Divide by their number.")
def _(latents):
    counts, n, d = _counts(latents)
    return (latents > 0).sum(1).double().mean().item(), counts.float(), (counts == 0).double().mean().item(), (10 * counts > n).double().mean().item()


@firing_statistics.variant
def _(latents):
    """count_nonzero."""
    counts = torch.count_nonzero(latents, dim=0)
    return float(counts.sum()) / len(latents), (counts / len(latents)).float(), float((counts == 0).double().mean()), float((counts > len(latents) / 10).double().mean())


@firing_statistics.variant
def _(latents):
    """A loop over latents."""
    n, d = latents.shape
    counts = [int((latents[:, i] > 0).sum()) for i in range(d)]
    return sum(counts) / n, torch.tensor([c / n for c in counts]), sum(c == 0 for c in counts) / d, sum(c * 10 > n for c in counts) / d


@firing_statistics.variant
def _(latents):
    """NumPy."""
    fires = latents.numpy() > 0
    counts = fires.sum(0)
    return float(fires.sum(1).mean()), torch.from_numpy((counts / len(fires)).astype(np.float32)), float(np.mean(counts == 0)), float(np.mean(counts > len(fires) // 10))


# --- loss_with ---------------------------------------------------------------------------------------------


def _loss_cases(rng: torch.Generator) -> Iterator[Case]:
    for batch, pos, layer in ((3, 6, 1), (2, 9, 0)):
        tokens = token_rows(rng, batch, pos, low=4)
        usual = torch.rand(batch, pos, generator=rng) < 0.6
        usual[:, 0], usual[:, 2], usual[:, 3] = False, True, False
        yield Case(f"{batch} rows of {pos} tokens, after block {layer}", tiny(), tokens, resid_post(layer), 2 * normal(rng, batch, pos, 24, dtype=torch.float32), usual)
    tokens, usual = token_rows(rng, 2, 5, low=4), torch.tensor([[0, 1, 0, 1, 0], [0, 1, 1, 0, 0]]).bool()
    values = normal(rng, 2, 5, 24, dtype=torch.float32).masked_fill(~usual[..., None], torch.nan)
    yield Case("what stands in is no number where nothing stands in", tiny(), tokens, resid_post(0), values, usual).of("nan")
    yield Case("one row of two tokens", tiny(), tokens[:1, :2], resid_post(1), normal(rng, 1, 2, 24, dtype=torch.float32), usual[:1, :2]).of("extreme")
    yield Case("something stands in everywhere, at the first tokens too", tiny(), tokens, resid_post(1), normal(rng, 2, 5, 24, dtype=torch.float32), torch.ones_like(usual)).of("extreme")


loss_with = Exercise(
    "loss_with",
    without={**NOT_TRAINED, **NO_THRESHOLD, "scale": "there is no float64 model"},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="How an SAE takes a model's place at one point, and what counts as the price.",
    cases=_loss_cases,
    hints=(
        "Two steps. First a forward pass during which some of the activations are other vectors; then a loss per predicted token. `intervene` "
        "does the first: its function is given the activation and returns what the model shall go on with.",
        "`model(tokens)` is [batch, pos, d_vocab]. The prediction at place 0 is about the token at place 1: which slice of the logits meets which slice of the tokens?",
        "In the hook: three arguments of `torch.where`, and `usual` lacks an axis. For the loss: `gather` picks one entry of the last axis of the log-probabilities; "
        "the index needs as many axes as they have.",
    ),
    verified="tokens that stay as they are, the shift by one, both batch sizes, no hook left behind.",
    next="put the model's own activations in, with 1e-6 added to one number, since `intervene` refuses to change nothing: the loss must be that of the clean model to many digits.",
    equal=close_to(rtol=1e-3, atol=1e-4),
)


def _losses(model, tokens, name, stand_in):
    with torch.no_grad(), intervene(model, {name: stand_in}, may_do_nothing=True):
        return F.log_softmax(model(tokens), dim=-1)


def _next(logprobs, tokens):
    return -logprobs[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)


@loss_with.mistake(
    "every-token-replaced",
    "You replaced every token, the start token included. It holds the attention sink; without it the model falls apart, and any SAE looks good beside that wreck.",
)
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: values), tokens)


@loss_with.mistake("unusual-tokens-replaced", "You replaced the tokens that should stay, and kept the others.")
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: torch.where(usual[..., None], acts, values)), tokens)


@loss_with.mistake("added-not-replaced", "You added the values to the activation. They stand in *for* it.")
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: acts + usual[..., None] * values), tokens)


@loss_with.mistake("others-set-to-zero", "Where `usual` is False you put zeros. The model's own activation stays there.")
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: usual[..., None] * values), tokens)


@loss_with.mistake("same-token-predicted", "You scored each place against its own token. The prediction at a place is about the token *after* it.")
def _(model, tokens, name, values, usual):
    logprobs = _losses(model, tokens, name, lambda acts, hook: torch.where(usual[..., None], values, acts))
    return -logprobs[:, 1:].gather(2, tokens[:, 1:, None]).squeeze(2)


@loss_with.mistake("log-probability", "You returned log-probabilities. A loss is minus that: lower is better.")
def _(model, tokens, name, values, usual):
    return -_next(_losses(model, tokens, name, lambda acts, hook: torch.where(usual[..., None], values, acts)), tokens)


@loss_with.mistake("clean-model", "This is the loss of the model as it is: your hook was not there when the model ran, or its result was not used.")
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: acts), tokens)


@loss_with.mistake("mean-loss", "You averaged over the tokens. One number per prediction was asked for: documents are resampled later, and averages cannot be.")
def _(model, tokens, name, values, usual):
    return _next(_losses(model, tokens, name, lambda acts, hook: torch.where(usual[..., None], values, acts)), tokens).mean()


@loss_with.variant
def _(model, tokens, name, values, usual):
    """cross_entropy, and an edit in place."""
    def stand_in(acts, hook):
        acts[usual] = values[usual]
        return acts

    with torch.no_grad(), intervene(model, {name: stand_in}):
        logits = model(tokens)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


@loss_with.variant
def _(model, tokens, name, values, usual):
    """Row by row, with logsumexp."""
    rows = []
    for i in range(len(tokens)):
        with torch.no_grad(), intervene(model, {name: lambda acts, hook, i=i: torch.where(usual[i : i + 1, :, None], values[i : i + 1], acts)}, may_do_nothing=True):
            logits = model(tokens[i : i + 1])[0, :-1]
        rows.append(logits.logsumexp(-1) - logits[torch.arange(len(logits)), tokens[i, 1:]])
    return torch.stack(rows)


@loss_with.variant
def _(model, tokens, name, values, usual):
    """The clean activation first, then one finished tensor that stands in."""
    acts = run_with_cache(model, tokens, name)[name]
    finished = acts.clone()
    finished[usual] = values[usual]
    with torch.no_grad(), intervene(model, {name: lambda _, hook: finished}):
        probs = model(tokens).softmax(-1)
    return torch.stack([-probs[:, p].gather(1, tokens[:, p + 1, None]).squeeze(1).log() for p in range(tokens.shape[1] - 1)], 1)


# --- kl_from_clean -----------------------------------------------------------------------------------------


def _kl_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 rows of 4 predictions, 7 words", 2 * normal(rng, 3, 4, 7), 2 * normal(rng, 3, 4, 7))
    yield Case("5 predictions, 11 words, float32", 3 + 2 * normal(rng, 5, 11, dtype=torch.float32), normal(rng, 5, 11, dtype=torch.float32) - 2)
    yield Case("large logits", 800 + 30 * normal(rng, 2, 5), 1000 + 30 * normal(rng, 2, 5))
    yield Case("logits of 0 and 120, float32", torch.tensor([[0.0, 120.0, 3.0]]), torch.tensor([[120.0, 0.0, 5.0]])).of("extreme")
    yield Case("equal predictions", torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([[4.0, 5.0]], dtype=torch.float64)).of("extreme")
    yield Case("one prediction", normal(rng, 6), normal(rng, 6)).of("extreme")
    yield Case("a batch of three axes", normal(rng, 2, 3, 2, 5), normal(rng, 2, 3, 2, 5))


kl_from_clean = Exercise(
    "kl_from_clean",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "scale": "logits have no scale that is free: a difference of probabilities that differ by 1e-12 is rounding"},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="A price that, unlike the loss, cannot be hidden by being wrong in a lucky way.",
    cases=_kl_cases,
    hints=(
        "Both arguments are logits. What turns them into logarithms of probabilities, safely?",
        "The divergence is an average of log p - log q. Which of the two distributions weighs it, and over which axis is it summed?",
        "Make both logarithms first. Their difference is one number a word; what turns the logarithm of the clean model back into the weight of that word?",
    ),
    verified="the direction, shapes with and without a batch, logits that differ by a constant, logits of a thousand.",
    next="exchange the arguments: which direction punishes the other model for ruling out what the clean one thinks likely?",
)


def _kl(clean, other):
    p, q = clean.log_softmax(-1), other.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@kl_from_clean.mistake("arguments-exchanged", "This is KL(other || clean). The clean model draws the tokens, so its probabilities do the weighing. (`F.kl_div` takes the arguments in the other order than the formula.)")
def _(clean, other):
    return _kl(other, clean)


@kl_from_clean.mistake("no-softmax", "You treated logits as logarithms of probabilities. They are so only up to a constant per prediction.")
def _(clean, other):
    return (clean.softmax(-1) * (clean - other)).sum(-1)


@kl_from_clean.mistake("in-bits", "The unit is off by a constant: these are bits. Use the natural logarithm.")
def _(clean, other):
    return _kl(clean, other) / np.log(2)


@kl_from_clean.mistake("averaged-over-words", "You averaged over the vocabulary. The probabilities do the weighing already: sum.")
def _(clean, other):
    return _kl(clean, other) / clean.shape[-1]


@kl_from_clean.mistake("cross-entropy", "This is the cross-entropy. Without subtracting the clean model's own entropy it is not 0 where both agree.")
def _(clean, other):
    return -(clean.softmax(-1) * other.log_softmax(-1)).sum(-1)


@kl_from_clean.mistake("both-directions", "You averaged both directions. That is a fair measure with another name (Jeffreys); here only one is asked for.")
def _(clean, other):
    return (_kl(clean, other) + _kl(other, clean)) / 2


@kl_from_clean.mistake("one-number", "You averaged over the predictions. One number each was asked for.")
def _(clean, other):
    return _kl(clean, other).mean()


@kl_from_clean.mistake("not-weighed", "You summed log p - log q without weighing by the clean probabilities: a word that nobody expects counts as much as the likeliest.")
def _(clean, other):
    return (clean.log_softmax(-1) - other.log_softmax(-1)).sum(-1)


@kl_from_clean.variant
def _(clean, other):
    """F.kl_div, whose first argument is the other one."""
    return F.kl_div(other.log_softmax(-1), clean.log_softmax(-1), reduction="none", log_target=True).sum(-1)


@kl_from_clean.variant
def _(clean, other):
    """Cross-entropy minus entropy."""
    p = clean.log_softmax(-1)
    return (p.exp() * p).sum(-1) - (p.exp() * other.log_softmax(-1)).sum(-1)


@kl_from_clean.variant
def _(clean, other):
    """logsumexp and einsum."""
    p = clean - clean.logsumexp(-1, keepdim=True)
    q = other - other.logsumexp(-1, keepdim=True)
    return torch.einsum("...v,...v->...", p.exp(), p - q)


# --- loss_recovered ----------------------------------------------------------------------------------------


def _recovered_cases(rng: torch.Generator) -> Iterator[Case]:
    for n_docs, n_draws, dtype in ((7, 60, torch.float64), (5, 45, torch.float32)):
        # Documents of very different lengths; the ablation hurts some much more than others.
        size = 10 * torch.linspace(1, 12, n_docs, dtype=torch.float64)[torch.randperm(n_docs, generator=rng)]
        clean = size * (2 + uniform(rng, n_docs))
        ablated = clean + size * (0.5 + 5 * uniform(rng, n_docs))
        sae = clean + (ablated - clean) * uniform(rng, n_docs) * 0.7
        draws = integers(rng, 0, n_docs, n_draws, n_docs)
        yield Case(f"{n_docs} documents, {n_draws} resamples", torch.stack([clean, sae, ablated], 1).to(dtype), draws)
    losses = torch.tensor([[2.0, 9.0, 5.0], [1.0, 4.0, 3.0], [3.0, 3.5, 4.0]], dtype=torch.float64)
    yield Case("an SAE worse than the ablation", losses, integers(rng, 0, 3, 20, 3)).of("extreme")
    harmless = torch.tensor([[2.0, 2.5, 5.0], [3.0, 2.7, 2.2]], dtype=torch.float64)
    yield Case("a document that the ablation does good, alone in some resamples", harmless, torch.tensor([[1, 1], [0, 0], [0, 1], [1, 1]])).of("extreme")
    yield Case("one document", losses[2:], torch.zeros(4, 1, dtype=torch.long)).of("extreme")
    better = torch.tensor([[2.0, 1.5, 5.0], [1.0, 1.2, 3.0], [3.0, 2.8, 4.0]], dtype=torch.float64)
    yield Case("an SAE better than the clean model, one resample", better, torch.tensor([[0, 2, 2]])).of("extreme")


loss_recovered = Exercise(
    "loss_recovered",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, "negative": "losses are never negative"},
    difficulty=3,
    importance=5,
    minutes=15,
    learn="The number that papers report about an SAE, as a ratio of sums with an interval over documents.",
    cases=_recovered_cases,
    hints=(
        "Three sums over documents make one number. Write the number for the documents as they are; then the same three sums for every resample.",
        "Print `losses[draws].shape`. Which axis are the documents of a resample, and which the three losses?",
        "Write the share as a function of three sums, and call it twice: with the three sums of the documents as they are, and with three columns of n_draws sums. `quantile` takes both ends at once.",
    ),
    verified="documents of very different lengths, ratios of sums, percentiles of whole resamples.",
    next="change the third column, the floor, and nothing else: how much better can the same SAE look?",
)


def _recovered(losses, draws, *, share=lambda c, s, a: (a - s) / (a - c), q=(0.025, 0.975), sums=None):
    losses = losses.double()
    value = share(*losses.sum(0))
    shares = share(*(losses[draws].sum(1) if sums is None else sums).T)
    return value.item(), *shares.quantile(torch.tensor(q, dtype=torch.double)).tolist()


@loss_recovered.mistake("mean-of-ratios", "You averaged the documents' own shares. A document of three lines then weighs as much as a book: sum the losses first, divide once.")
def _(losses, draws):
    clean, sae, ablated = losses.double().T
    shares = (ablated - sae) / (ablated - clean)
    low, high = shares[draws].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return shares.mean().item(), low, high


wrong_ways(loss_recovered, _recovered, {
    "share-lost": ({"share": lambda c, s, a: (s - c) / (a - c)},
        "You returned the share of the damage that *remains*: an SAE that costs nothing would get 0."),
    "divided-by-the-floor": ({"share": lambda c, s, a: (a - s) / a},
        "The denominator is the ablated loss. It should be the *damage*, the ablated loss minus the clean one: 0 then means as bad as the ablation."),
    "relative-to-clean": ({"share": lambda c, s, a: c / s},
        "You returned the clean loss over the SAE's. That never looks bad: even an ablation would score well above 0."),
    "90-percent-interval": ({"q": (0.05, 0.95)},
        "Your interval runs from the 5th to the 95th percentile. A 95% interval leaves 2.5% on either side."),
})


@loss_recovered.mistake("columns-exchanged", "The columns are clean, SAE, ablation. You took the first for the SAE's.")
def _(losses, draws):
    return _recovered(losses[:, [1, 0, 2]], draws)


@loss_recovered.mistake(
    "normal-interval",
    "Your interval is the value plus and minus 1.96 standard deviations of the resamples. Asked for are their percentiles, which may lie unevenly around the value.",
)
def _(losses, draws):
    sums = losses.double()[draws].sum(1)
    shares = (sums[:, 2] - sums[:, 1]) / (sums[:, 2] - sums[:, 0])
    value = _recovered(losses, draws)[0]
    return value, (value - 1.96 * shares.std(correction=0)).item(), (value + 1.96 * shares.std(correction=0)).item()


@loss_recovered.mistake("mean-of-the-resamples", "The first number is the mean of the resamples. The value is that of the documents as they are; the resamples are for the interval alone.")
def _(losses, draws):
    sums = losses.double()[draws].sum(1)
    shares = (sums[:, 2] - sums[:, 1]) / (sums[:, 2] - sums[:, 0])
    return shares.mean().item(), *_recovered(losses, draws)[1:]


@loss_recovered.variant
def _(losses, draws):
    """A loop over resamples, and NumPy's percentiles."""
    def share(rows):
        clean, sae, ablated = rows.double().sum(0).tolist()
        return 1 - (sae - clean) / (ablated - clean)

    shares = [share(losses[draw]) for draw in draws]
    low, high = np.percentile(shares, [2.5, 97.5])
    return share(losses), float(low), float(high)


@loss_recovered.variant
def _(losses, draws):
    """Counts of each document in a resample, as one matrix product."""
    counts = F.one_hot(draws, len(losses)).sum(1).double()
    sums = counts @ losses.double()
    shares = 1 - (sums[:, 1] - sums[:, 0]) / (sums[:, 2] - sums[:, 0])
    clean, sae, ablated = losses.double().sum(0)
    return float((ablated - sae) / (ablated - clean)), float(torch.quantile(shares, 0.025)), float(torch.quantile(shares, 0.975))


@loss_recovered.variant
def _(losses, draws):
    """Damage first."""
    damage = losses.double() - losses.double()[:, :1]
    def share(sums):
        return (sums[..., 2] - sums[..., 1]) / sums[..., 2]

    low, high = share(torch.stack([damage[d].sum(0) for d in draws])).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return share(damage.sum(0)).item(), low, high
