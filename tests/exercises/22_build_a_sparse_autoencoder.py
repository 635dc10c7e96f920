"""The exercises of chapter 22: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from utils.course.battery import ALL_COUNTS, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import as_leaves, decoded, for_each_sae, normal, pre_acts, sae_params, top_k
from utils.course.exercises import Case, Exercise

_RELU = {"boundary": "both sides of a ReLU agree at 0"}


# --- mean_max_cosine ---------------------------------------------------------------------------------------

def _cosine_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("9 latents, 4 features, 3 dimensions", normal(rng, 9, 3), normal(rng, 4, 3))
    truth = normal(rng, 5, 6)
    yield Case("fewer latents than features, one of them reversed", torch.cat([-3 * truth[:1], normal(rng, 2, 6)]), truth)
    learned = normal(rng, 7, 4, dtype=torch.float32)
    learned[2] = 0
    yield Case("a latent whose row is zero, float32", learned, normal(rng, 3, 4, dtype=torch.float32))
    away = torch.tensor([[-3.0, 1.0], [0.0, 0.0], [-1.0, -2.0]], dtype=torch.float64)
    yield Case("all rows point away but one, which is zero", away, torch.tensor([[2.0, 0.0], [1.0, 1e-3]], dtype=torch.float64)).of("boundary")
    yield Case("one latent, the opposite of the one feature", away[:1], -2 * away[:1]).of("extreme")
    yield Case("no row but zeros", 0 * away, away[[0, 2]]).of("extreme")


mean_max_cosine = Exercise(
    "mean_max_cosine",
    without={**NOT_TRAINED, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="How recovery is scored when the truth is known, and which of the two sets does the searching.",
    cases=_cosine_cases,
    hints=(
        "Features search among latents, not the other way round: forty latents may contain twenty features and twenty things that are none.",
        "Make the matrix of cosines and print its shape. Over which axis must the maximum go so that one number per feature is left?",
        "`normalize(truth, dim=-1) @ normalize(learned, dim=-1).T` has one row per feature. A maximum, a mean, and a Python float.",
    ),
    verified="more latents than features and fewer, rows of all lengths, a reversed direction, a row of zeros.",
    next="give it forty random directions in five dimensions: the number that you see is the zero of this scale.",
)


def _cosines(learned, truth):
    return normalize(truth, dim=-1) @ normalize(learned, dim=-1).T


@mean_max_cosine.mistake(
    "latents-search",
    "You took the best feature for each latent. That punishes spare latents and forgives missed features: a dictionary of forty copies of one feature would score 1.",
)
def _(learned, truth):
    return _cosines(learned, truth).max(dim=0).values.mean().item()


@mean_max_cosine.mistake("either-sign", "You took absolute values. A latent that points the opposite way can never write this feature: latents are not negative.")
def _(learned, truth):
    return _cosines(learned, truth).abs().max(dim=1).values.mean().item()


@mean_max_cosine.mistake("products-not-cosines", "The learned rows were not scaled to length 1. A long row is not a good match, it is a long row.")
def _(learned, truth):
    return (normalize(truth, dim=-1) @ learned.T).max(dim=1).values.mean().item()


@mean_max_cosine.mistake("truth-not-scaled", "The true directions were not scaled to length 1.")
def _(learned, truth):
    return (truth @ normalize(learned, dim=-1).T).max(dim=1).values.mean().item()


@mean_max_cosine.mistake("mean-of-all", "You averaged all cosines. Most pairs have nothing to do with each other; each feature asks for its best latent only.")
def _(learned, truth):
    return _cosines(learned, truth).mean().item()


@mean_max_cosine.mistake("best-of-all", "You took one maximum over everything: the best match of the best feature. Average the maxima over the features.")
def _(learned, truth):
    return _cosines(learned, truth).max().item()


@mean_max_cosine.mistake("dimensions-normalised", "You scaled the dimensions, not the directions. Print `.norm(dim=-1)` of what you compare.")
def _(learned, truth):
    return (normalize(truth, dim=0) @ normalize(learned, dim=0).T).max(dim=1).values.mean().item()


@mean_max_cosine.variant
def _(learned, truth):
    """cosine_similarity, broadcast."""
    return float(cosine_similarity(truth[:, None], learned[None], dim=-1).amax(1).mean())


@mean_max_cosine.variant
def _(learned, truth):
    """Two loops."""
    best = []
    for t in truth:
        found = [float(t @ row / (t.norm() * row.norm())) if row.any() else 0.0 for row in learned]
        best.append(max(found))
    return sum(best) / len(best)


@mean_max_cosine.variant
def _(learned, truth):
    """Products first, lengths after."""
    products = torch.einsum("fd,ld->fl", truth, learned)
    lengths = truth.norm(dim=1)[:, None] * learned.norm(dim=1).clamp_min(1e-12)
    return (products / lengths).max(1)[0].mean().item()


# --- init_sae ----------------------------------------------------------------------------------------------

def _init_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("7 latents, 3 dimensions, 11 rows", normal(rng, 7, 3), 2 + normal(rng, 11, 3))
    yield Case("2 SAEs at once, float32", normal(rng, 2, 4, 5, dtype=torch.float32), 1 + normal(rng, 2, 9, 5, dtype=torch.float32))
    yield Case("one latent, one dimension, one row", torch.tensor([[-3.0]]), torch.tensor([[5.0]])).of("extreme")
    yield Case("as many latents as dimensions, their rows already of length 1", torch.eye(3, dtype=torch.float64)[[2, 0, 1]], normal(rng, 4, 3)).of("extreme")
    yield Case("one row very short, one very long", torch.tensor([[3e-7, 4e-7], [6e8, -8e8]], dtype=torch.float64), normal(rng, 3, 2)).of("extreme")
    x = normal(rng, 1, 3)
    yield Case("as many latents as dimensions, the mean activation 0", normal(rng, 3, 3), torch.cat([x, -x])).of("extreme")
    yield Case("2 SAEs at once, not contiguous in memory", normal(rng, 4, 2, 3).transpose(0, 1), normal(rng, 5, 2, 3).transpose(0, 1))


init_sae = Exercise(
    "init_sae",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="Where a sparse autoencoder starts, and why the encoder begins as the decoder's mirror image.",
    cases=_init_cases,
    hints=(
        "A latent should begin by answering to the direction that it writes. Which matrix product of a unit vector with itself gives 1?",
        "Print `rows.shape` and `rows.norm(dim=-1, keepdim=True).shape`. Which axis of [*sae, d_sae, d_in] runs along one latent's vector?",
        "Divide each row by its own length (`keepdim=True` keeps the shapes in line). The encoder is that decoder, transposed and cloned. Over which axis of x is the mean taken, so that d_in numbers are left?",
    ),
    verified="unit rows, a mirrored encoder, the mean as origin, for one SAE and for several at once.",
    next="why clone the transpose? Without it encoder and decoder are one memory, and an optimiser that changes one changes both.",
)


def _init(rows, x, *, scale=None, encoder=None, origin=None):
    W_dec = rows / (rows.norm(dim=-1, keepdim=True) if scale is None else scale)
    return {
        "W_dec": W_dec,
        "W_enc": W_dec.transpose(-1, -2).clone() if encoder is None else encoder,
        "b_enc": torch.zeros_like(W_dec[..., 0]),
        "b_dec": x.mean(dim=-2) if origin is None else origin,
    }


@init_sae.mistake(
    "columns-normalised",
    "You gave length 1 to the *columns* of W_dec. A latent's direction is a row: print `W_dec.norm(dim=-1)`, it should be all ones.",
)
def _(rows, x):
    return _init(rows, x, scale=rows.norm(dim=-2, keepdim=True))


@init_sae.mistake("whole-matrix-normalised", "You divided by the length of the whole matrix. Each latent's row has a length of its own.")
def _(rows, x):
    return _init(rows, x, scale=rows.flatten(-2).norm(dim=-1)[..., None, None])


@init_sae.mistake("not-normalised", "The decoder rows have the lengths they came with. A latent's value is a size only if its direction has length 1.")
def _(rows, x):
    return _init(rows, x, scale=1)


@init_sae.mistake("sum-of-entries", "You divided by the sum of the absolute entries. That is another norm: the length is the square root of the sum of squares.")
def _(rows, x):
    return _init(rows, x, scale=rows.abs().sum(-1, keepdim=True))


@init_sae.mistake(
    "encoder-from-raw-rows",
    "The encoder is the transpose of the rows as they came, not of the decoder. A latent with a long row would start loud.",
)
def _(rows, x):
    return _init(rows, x, encoder=rows.transpose(-1, -2).clone())


@init_sae.mistake("origin-at-zero", "b_dec starts at zero. The activations do not: their mean is what every row has in common, and no latent should have to write it.")
def _(rows, x):
    return _init(rows, x, origin=torch.zeros_like(x[..., 0, :]))


@init_sae.mistake("one-mean-for-all-dimensions", "b_dec holds one number everywhere: you averaged over the dimensions too. Each dimension has its own mean.")
def _(rows, x):
    return _init(rows, x, origin=x.mean(dim=(-1, -2))[..., None].expand_as(x[..., 0, :]).clone())


@init_sae.mistake(
    "encoder-is-a-view",
    "The values are right, in memory that is shared; most often W_enc is W_dec seen from the other side. Whoever changes one changes both: `.clone()` makes a tensor of its own.",
)
def _(rows, x):
    W_dec = rows / rows.norm(dim=-1, keepdim=True)
    return _init(rows, x) | {"W_dec": W_dec, "W_enc": W_dec.transpose(-1, -2)}


@init_sae.variant
def _(rows, x):
    """normalize, and einsum for the transpose."""
    W_dec = normalize(rows, dim=-1)
    return {"b_dec": x.sum(-2) / x.shape[-2], "b_enc": rows.new_zeros(rows.shape[:-1]), "W_enc": torch.einsum("...sd->...ds", W_dec).clone(), "W_dec": W_dec}


@init_sae.variant
def _(rows, x):
    """A loop over latents."""
    W_dec = torch.stack([row / row.square().sum(-1, keepdim=True).sqrt() for row in rows.unbind(-2)], dim=-2)
    return {"W_dec": W_dec, "W_enc": W_dec.mT + 0, "b_enc": W_dec.sum(-1) * 0, "b_dec": x.mean(-2)}


@init_sae.variant
def _(rows, x):
    """vector_norm, stacked columns."""
    W_dec = rows / torch.linalg.vector_norm(rows, dim=-1)[..., None]
    return {"W_dec": W_dec, "W_enc": torch.stack(W_dec.unbind(-2), dim=-1), "b_enc": torch.zeros(rows.shape[:-1], dtype=rows.dtype), "b_dec": torch.einsum("...nd->...d", x) / x.shape[-2]}


# --- sae_forward -------------------------------------------------------------------------------------------

def _forward_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("9 rows, 4 dimensions, 7 latents", sae_params(rng, (), 4, 7), normal(rng, 9, 4))
    yield Case("one row, in training", as_leaves(sae_params(rng, (), 3, 5)), normal(rng, 1, 3))
    yield Case("2 SAEs at once, float32", sae_params(rng, (2,), 5, 3, torch.float32), normal(rng, 2, 6, 5, dtype=torch.float32))
    silent = sae_params(rng, (), 3, 4)
    silent["b_enc"] -= 100
    yield Case("no latent is on", silent, normal(rng, 5, 3)).of("extreme")
    yield Case("one latent, one dimension", sae_params(rng, (), 1, 1), normal(rng, 6, 1)).of("extreme")
    origin = sae_params(rng, (), 4, 6)
    yield Case("two rows that are the decoder bias", origin, origin["b_dec"].repeat(2, 1)).of("extreme")
    yield Case("2 SAEs at once, and their gradient", sae_params(rng, (2,), 3, 4), normal(rng, 5, 2, 3).transpose(0, 1)).with_gradient(params=0)


sae_forward = Exercise(
    "sae_forward",
    trained=("params",),
    without={**_RELU, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="What a sparse autoencoder computes: two matrix products, one ReLU, and three places for a bias.",
    cases=_forward_cases,
    hints=(
        "Follow one activation: move the origin to b_dec, ask every latent how much of its direction is there, throw away the negative answers, write the rest back.",
        "Print `params['b_dec'].shape` beside `x.shape`. With one leading axis, [2, 5] against [2, 6, 5] does not line up from the right: where does an axis of length 1 have to go?",
        "The formula above, symbol by symbol, with `.unsqueeze(-2)` on each bias. Keep the latents: they are the first thing that is returned.",
    ),
    verified="biases that are not zero, more latents than dimensions and fewer, one row, several SAEs at once.",
    next="halve a decoder row and double its encoder column: what changes in acts, and what in x_hat?",
)


@sae_forward.mistake(
    "origin-not-removed",
    "You encoded x itself. The decoder bias is the origin of both spaces: take it off before the encoder.",
)
def _(params, x):
    acts = (x @ params["W_enc"] + params["b_enc"].unsqueeze(-2)).relu()
    return acts, decoded(params, acts)


@sae_forward.mistake(
    "origin-not-returned",
    "Your reconstruction lacks the decoder bias: it is in the space around the origin, while x is not.",
)
def _(params, x):
    acts = pre_acts(params, x).relu()
    return acts, acts @ params["W_dec"]


@sae_forward.mistake("no-relu", "Latents are negative. Without the ReLU the whole autoencoder is one linear map, and nothing is ever off.")
def _(params, x):
    pre = pre_acts(params, x)
    return pre, decoded(params, pre)


@sae_forward.mistake("relu-before-bias", "You applied the ReLU before adding the encoder bias. A negative bias is what keeps a weak latent off: it belongs inside.")
def _(params, x):
    acts = ((x - params["b_dec"].unsqueeze(-2)) @ params["W_enc"]).relu() + params["b_enc"].unsqueeze(-2)
    return acts, decoded(params, acts)


@sae_forward.mistake("tied-weights", "You encoded with the decoder's transpose. At the start the two are equal; after the first step they are not.")
def _(params, x):
    acts = ((x - params["b_dec"].unsqueeze(-2)) @ params["W_dec"].transpose(-1, -2) + params["b_enc"].unsqueeze(-2)).relu()
    return acts, decoded(params, acts)


@sae_forward.mistake("encoder-bias-forgotten", "The encoder bias is missing: it is added before the ReLU, once per latent.")
def _(params, x):
    acts = ((x - params["b_dec"].unsqueeze(-2)) @ params["W_enc"]).relu()
    return acts, decoded(params, acts)


@sae_forward.mistake("reconstruction-through-relu", "You applied a ReLU to the reconstruction as well. Activations have negative entries, and so must it.")
def _(params, x):
    acts = pre_acts(params, x).relu()
    return acts, decoded(params, acts).relu()


@sae_forward.mistake(
    "reconstruction-teaches-nothing",
    "The reconstruction is decoded from detached latents: its error reaches the decoder and never the encoder, which would stay as it started.",
)
def _(params, x):
    acts = pre_acts(params, x).relu()
    return acts, decoded(params, acts.detach())


@sae_forward.mistake("gradient-lost", "Your function leaves torch (`.numpy()`), and nothing can be differentiated through it. Training needs the gradient of x_hat by every parameter.")
def _(params, x):
    p = {name: value.numpy() for name, value in params.items()}
    acts = pre_acts({name: torch.from_numpy(value) for name, value in p.items()}, x).relu()
    return acts, decoded(params, acts)


@sae_forward.variant
def _(params, x):
    """einsum, and biases by None."""
    pre = torch.einsum("...nd,...ds->...ns", x - params["b_dec"][..., None, :], params["W_enc"])
    acts = torch.clamp(pre + params["b_enc"][..., None, :], min=0)
    return acts, torch.einsum("...ns,...sd->...nd", acts, params["W_dec"]) + params["b_dec"][..., None, :]


@sae_forward.variant
def _(params, x):
    """The origin folded into the encoder bias."""
    b = params["b_enc"] - torch.einsum("...d,...ds->...s", params["b_dec"], params["W_enc"])
    acts = torch.relu(x @ params["W_enc"] + b[..., None, :])
    return acts, acts @ params["W_dec"] + params["b_dec"][..., None, :]


@sae_forward.variant
@for_each_sae
def _(params, x):
    """A loop over rows."""
    acts = torch.stack([(params["W_enc"].T @ (row - params["b_dec"]) + params["b_enc"]).clamp(min=0) for row in x])
    return acts, torch.stack([params["W_dec"].T @ row + params["b_dec"] for row in acts])


# --- l1_loss -----------------------------------------------------------------------------------------------

def _l1_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("9 rows, 4 dimensions, 7 latents", sae_params(rng, (), 4, 7), normal(rng, 9, 4), 0.7)
    yield Case("2 SAEs at once, float32", sae_params(rng, (2,), 5, 3, torch.float32), normal(rng, 2, 6, 5, dtype=torch.float32), 2.5)
    yield Case("in training", as_leaves(sae_params(rng, (), 3, 5)), normal(rng, 4, 3), 0.4)
    free = sae_params(rng, (), 2, 3)
    yield Case("activation is free", free, normal(rng, 5, 2), 0.0).of("extreme")
    yield Case("no latent is on, one row", {**free, "b_enc": free["b_enc"] - 100}, normal(rng, 1, 2), 3.0).of("extreme")
    free = {**free, "W_dec": free["W_dec"].clone()}
    free["W_dec"][1] = 0
    yield Case("a decoder row of length 0", free, normal(rng, 6, 2), 0.9).of("extreme")
    yield Case("2 SAEs at once, activation is free, and the gradient", sae_params(rng, (2,), 3, 4), normal(rng, 2, 5, 3), 0.0).with_gradient(params=0)
    far = sae_params(rng, (), 3, 4)
    far["b_dec"] += 1e6
    yield Case("activations far from 0", far, far["b_dec"] + normal(rng, 4, 3), 0.5).of("extreme")


l1_loss = Exercise(
    "l1_loss",
    trained=("params",),
    without={**_RELU, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=10,
    learn="The loss that started it all, and the factor in it that closes a loophole.",
    cases=_l1_cases,
    hints=(
        "Two prices per row: what the reconstruction misses, and what the latents write. A latent's real effect is its value times the length of its row.",
        "Print `acts.shape` and `params['W_dec'].norm(dim=-1).shape`. Where does the second need an axis of length 1, if there are several SAEs?",
        "Two numbers per row: `error`, and `price`, a sum over latents of value times length. What is averaged, and over which axis, so that one number per SAE is left?",
    ),
    verified="decoder rows of all lengths, sums over dimensions and latents, a mean over rows only.",
    next="multiply the encoder and b_enc by 10 and divide W_dec by 10: the loss must not move.",
)


def _l1(params, x, l1, price):
    acts, x_hat = (f := pre_acts(params, x).relu()), decoded(params, f)
    return ((x - x_hat).square().sum(-1) + l1 * price(acts)).mean(-1)


@l1_loss.mistake(
    "scale-leak",
    "Your penalty ignores the decoder's lengths. Shrink the latents, stretch the rows by as much: the reconstruction is the same and the penalty is gone.",
)
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: acts.sum(-1))


@l1_loss.mistake("error-averaged-over-dimensions", "You averaged the squared error over the dimensions. With d_in times less weight on the error, the same l1 costs d_in times more.")
def _(params, x, l1):
    acts = pre_acts(params, x).relu()
    return ((x - decoded(params, acts)).square().mean(-1) + l1 * (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(-1)).mean(-1)


@l1_loss.mistake("summed-over-rows", "You summed over the rows. The loss, and with it the step, would grow with the batch.")
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(-1)) * x.shape[-2]


@l1_loss.mistake("price-averaged-over-latents", "You averaged the penalty over the latents. A wider dictionary would pay less for the same activations.")
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).mean(-1))


@l1_loss.mistake("squared-price", "You penalised the squares (a ridge). Squares punish one large latent more than many small ones: the opposite of sparse.")
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).square().sum(-1))


@l1_loss.mistake("encoder-lengths", "You weighted with the lengths of the encoder's columns. What a latent writes is decided by its decoder row.")
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: (acts * params["W_enc"].norm(dim=-2).unsqueeze(-2)).sum(-1))


@l1_loss.mistake("length-not-square", "You used the length of the error where its square was asked for.")
def _(params, x, l1):
    acts = pre_acts(params, x).relu()
    return ((x - decoded(params, acts)).norm(dim=-1) + l1 * (acts * params["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(-1)).mean(-1)


@l1_loss.mistake(
    "lengths-detached",
    "The decoder's lengths enter the penalty as constants. The number is right; its gradient does not know that a longer row costs more, and the loophole is open again.",
)
def _(params, x, l1):
    return _l1(params, x, l1, lambda acts: (acts * params["W_dec"].detach().norm(dim=-1).unsqueeze(-2)).sum(-1))


@l1_loss.mistake("gradient-lost", "Your function leaves torch (`.numpy()`), and nothing can be differentiated through it. A loss without a gradient trains nothing.")
def _(params, x, l1):
    p = {name: torch.from_numpy(value.numpy()) for name, value in params.items()}
    return _l1(p, x, l1, lambda acts: (acts * p["W_dec"].norm(dim=-1).unsqueeze(-2)).sum(-1))


@l1_loss.variant
def _(params, x, l1):
    """Error and price apart."""
    acts = pre_acts(params, x).clamp(min=0)
    error = torch.einsum("...nd->...n", (decoded(params, acts) - x) ** 2).mean(-1)
    return error + l1 * torch.einsum("...ns,...s->...n", acts, params["W_dec"].pow(2).sum(-1).sqrt()).mean(-1)


@l1_loss.variant
@for_each_sae
def _(params, x, l1):
    """A matrix-vector product for the price."""
    acts = torch.relu((x - params["b_dec"]) @ params["W_enc"] + params["b_enc"])
    return ((acts @ params["W_dec"] + params["b_dec"] - x) ** 2).sum() / len(x) + l1 * (acts @ torch.linalg.norm(params["W_dec"], dim=1)).mean()


@l1_loss.variant
def _(params, x, l1):
    """A decoder brought to length 1 first, its lengths moved into the latents."""
    length = params["W_dec"].norm(dim=-1).clamp(min=1e-30)
    acts = pre_acts(params, x).relu() * length[..., None, :]
    x_hat = acts @ (params["W_dec"] / length[..., None]) + params["b_dec"][..., None, :]
    return torch.nn.functional.mse_loss(x_hat, x, reduction="none").sum(-1).mean(-1) + l1 * acts.sum(-1).mean(-1)


# --- tangent_gradient --------------------------------------------------------------------------------------

def _tangent_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("7 latents, 3 dimensions", normalize(normal(rng, 7, 3), dim=-1), normal(rng, 7, 3))
    yield Case("2 SAEs of 4 latents, 5 dimensions", normalize(normal(rng, 2, 4, 5), dim=-1), normal(rng, 2, 4, 5))
    yield Case("as many latents as dimensions, float32", normalize(normal(rng, 4, 4, dtype=torch.float32), dim=-1), normal(rng, 4, 4, dtype=torch.float32))
    eye = torch.eye(3, dtype=torch.float64)
    yield Case("gradients along their rows, and across", eye, torch.tensor([[7.0, 0.0, 0.0], [2.0, 0.0, 5.0], [0.0, 0.0, -3.0]], dtype=torch.float64)).of("extreme")
    yield Case("one latent, one dimension", -eye[:1, :1], normal(rng, 1, 1)).of("extreme")
    yield Case("no gradient", eye, 0 * eye).of("extreme")


tangent_gradient = Exercise(
    "tangent_gradient",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="Why a constraint on lengths needs the gradient's help: the stretching part would only be thrown away, after Adam has seen it.",
    cases=_tangent_cases,
    hints=(
        "Split each row's gradient into a part along the row and a part across it. Only the second can turn the row.",
        "Print the shape of `(grad * W_dec).sum(dim=-1, keepdim=True)`. How many numbers is that, and is it what one latent needs?",
        "`(grad * W_dec).sum(dim=-1, keepdim=True)` says how far each gradient runs along its row. Times what is the part that has to go?",
    ),
    verified="each row on its own, for one decoder and for a stack of them.",
    next="`(tangent_gradient(W, g) * W).sum(-1)` is zero. What would Adam's second moment hold if you skipped this?",
)


@tangent_gradient.mistake("along-kept", "You kept the part along the rows and dropped the part across: the rows would never turn.")
def _(W_dec, grad):
    return (grad * W_dec).sum(-1, keepdim=True) * W_dec


@tangent_gradient.mistake("along-added", "You added the parallel part a second time. Subtract it.")
def _(W_dec, grad):
    return grad + (grad * W_dec).sum(-1, keepdim=True) * W_dec


@tangent_gradient.mistake("wrong-axis", "The product was summed over the latents, for each dimension. A latent's vector runs along the last axis.")
def _(W_dec, grad):
    return grad - (grad * W_dec).sum(-2, keepdim=True) * W_dec


@tangent_gradient.mistake("one-number-for-all", "You removed the component along the whole matrix, one number in all. Each row has its own.")
def _(W_dec, grad):
    return grad - (grad * W_dec).sum((-1, -2), keepdim=True) * W_dec


@tangent_gradient.mistake("length-removed", "You subtracted the row times the gradient's *length*. The component along a row is their product.")
def _(W_dec, grad):
    return grad - grad.norm(dim=-1, keepdim=True) * W_dec


@tangent_gradient.mistake("scaled-to-one", "You also scaled the result to length 1. A latent with nothing to learn would move as far as all others.")
def _(W_dec, grad):
    return normalize(grad - (grad * W_dec).sum(-1, keepdim=True) * W_dec, dim=-1)


@tangent_gradient.mistake("mean-for-sum", "You averaged the product over the dimensions. A dot product is a sum: most of the stretching part is still there.")
def _(W_dec, grad):
    return grad - (grad * W_dec).mean(-1, keepdim=True) * W_dec


@tangent_gradient.variant
def _(W_dec, grad):
    """einsum."""
    return grad - torch.einsum("...sd,...sd->...s", grad, W_dec)[..., None] * W_dec


@tangent_gradient.variant
def _(W_dec, grad):
    """A projection matrix per latent."""
    across = torch.eye(W_dec.shape[-1], dtype=W_dec.dtype) - W_dec[..., :, None] * W_dec[..., None, :]
    return (across @ grad[..., None])[..., 0]


@tangent_gradient.variant
def _(W_dec, grad):
    """A loop over the rows of the flattened stack."""
    rows = [g - (g @ w) * w for w, g in zip(W_dec.reshape(-1, W_dec.shape[-1]), grad.reshape(-1, grad.shape[-1]))]
    return torch.stack(rows).reshape(grad.shape)


# --- topk_acts ---------------------------------------------------------------------------------------------

def _topk_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("5 rows, 7 latents, k = 3", normal(rng, 5, 7), 3)
    some = normal(rng, 4, 6) - 0.5
    some[1] = -some[1].abs()
    yield Case("rows with fewer than k positive values", some, 4)
    yield Case("2 SAEs at once, float32, k = 1", normal(rng, 2, 6, 5, dtype=torch.float32), 1)
    yield Case("one row, k = d_sae, in training", normal(rng, 1, 5).requires_grad_(), 5).of("extreme")
    near = torch.tensor([[1.0, 3.0, 1.0 + 1e-12, -1.0], [0.0, -2.0, 5.0, -1.0], [2.0, 4.0, 0.0, -1.0], [6.0, 7.0, -1.0, -3.0]], dtype=torch.float64)
    yield Case("the k-th a hair above the next, or exactly 0, or just before a 0", near, 2).of("boundary")
    yield Case("the same, from right to left", near.flip(1), 2).of("boundary")
    yield Case("all are positive, k = d_sae", 0.1 + normal(rng, 3, 4).abs(), 4).of("extreme")
    yield Case("nothing is positive", -1 - normal(rng, 3, 4).abs(), 2).of("extreme")
    yield Case("one latent", torch.tensor([[2.0], [-1.0]]), 1).of("extreme")
    yield Case("2 SAEs at once, not contiguous in memory", normal(rng, 3, 2, 5).transpose(0, 1), 2)
    yield Case("2 SAEs at once, k = d_sae, and the gradient", normal(rng, 2, 3, 4), 4).with_gradient(pre=0).of("extreme")


topk_acts = Exercise(
    "topk_acts",
    ends={"k": lambda a: (1, a["pre"].shape[-1])},
    trained=("pre",),
    without=ALL_COUNTS,
    difficulty=2,
    importance=5,
    minutes=8,
    learn="Sparsity by decree: how many latents are on is set, and no penalty has to persuade them.",
    cases=_topk_cases,
    hints=(
        "Find where the k largest of each row are, and write only those into zeros.",
        "`pre.topk(k, dim=-1)` gives values and places: print both shapes. Which tensor of zeros are they to be scattered into, along which axis?",
        "`torch.zeros_like(pre).scatter(-1, places, values)` writes values into their places. What must be done about a value that is among the k largest and negative?",
    ),
    verified="rows with too few positive values, k = 1, k = d_sae, several SAEs at once.",
    next="the gradient of what was not kept is exactly zero: who teaches a latent that is never among the k?",
)


@topk_acts.mistake("negatives-kept", "A negative value among the k largest stayed. It is set to 0, even if fewer than k are left.")
def _(pre, k):
    return top_k(pre, k)


@topk_acts.mistake("largest-in-size", "You chose by absolute value, so that strong negative values pushed positive ones out.")
def _(pre, k):
    return top_k(pre, k, pre.abs()).relu()


@topk_acts.mistake("along-the-rows", "You kept the k largest rows of every latent. Each *row* keeps k latents: that is the last axis.")
def _(pre, k):
    return top_k(pre, min(k, pre.shape[-2]), dim=-2).relu()


@topk_acts.mistake("ones-for-values", "You returned which latents are on, not how strongly. The decoder needs the values.")
def _(pre, k):
    return (top_k(pre, k) > 0).to(pre.dtype)


@topk_acts.mistake("k-plus-one", "One latent too many stays on: `>` and `>=` at the wrong one of the sorted values, perhaps.")
def _(pre, k):
    return top_k(pre, min(k + 1, pre.shape[-1])).relu()


@topk_acts.mistake("smallest", "You kept the smallest values. What the latent saw most of is what should stay.")
def _(pre, k):
    return top_k(pre, k, -pre).relu()


@topk_acts.mistake("squeezed", "You returned the k values alone. The decoder needs to know which latents they belong to: the result has the shape of `pre`.")
def _(pre, k):
    return pre.relu().topk(k, dim=-1).values


@topk_acts.mistake("gradient-lost", "Your function leaves torch (`.numpy()`), and nothing can be differentiated through it. The values that stay must carry their gradient to the encoder.")
def _(pre, k):
    return top_k(torch.from_numpy(pre.numpy()), k).relu()


@topk_acts.variant
def _(pre, k):
    """A threshold at the k-th value."""
    kth = pre.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where((pre >= kth) & (pre > 0), pre, 0)


@topk_acts.variant
def _(pre, k):
    """Ranks."""
    rank = pre.argsort(dim=-1, descending=True).argsort(dim=-1)
    return pre.relu() * (rank < k)


@topk_acts.variant
def _(pre, k):
    """A loop over rows."""
    kept = []
    for row in pre.reshape(-1, pre.shape[-1]):
        values, places = torch.topk(row, k)
        target = torch.zeros_like(row)
        target[places] = torch.relu(values)
        kept.append(target)
    return torch.stack(kept).reshape(pre.shape)


# --- aux_k_loss --------------------------------------------------------------------------------------------

def _aux_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int, k_aux: int, dead: Tensor) -> Case:
        params = sae_params(rng, lead, d_in, d_sae)
        x = normal(rng, *lead, n, d_in)
        return Case(label, params, normal(rng, *lead, n, d_sae), x, x + 0.5 * normal(rng, *lead, n, d_in), dead, k_aux)

    yield case("9 latents, 5 of them dead, k_aux = 2", (), 4, 9, 7, 2, torch.tensor([1, 0, 1, 1, 0, 1, 0, 0, 1]).bool())
    few = case("fewer dead than k_aux, in training", (), 3, 6, 5, 4, torch.tensor([0, 1, 0, 0, 0, 1]).bool())
    yield Case(few.label, as_leaves(few.args[0]), few.args[1].requires_grad_(), *few.args[2:])
    yield case("2 SAEs at once, one without dead latents", (2,), 3, 5, 6, 2, torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool())
    exact = case("as many dead as may speak; one row in which none is positive", (), 3, 4, 3, 2, torch.tensor([1, 0, 0, 1]).bool())
    exact.args[1][1] = torch.tensor([0.0, 2.0, -1.0, -3.0])
    yield exact.of("boundary")
    yield case("k_aux above the number of latents", (), 3, 4, 5, 9, torch.tensor([1, 0, 1, 0]).bool()).of("extreme")
    yield case("all dead, one row", (), 2, 5, 1, 3, torch.ones(5).bool()).of("extreme")
    yield case("none dead", (), 2, 3, 4, 1, torch.zeros(3).bool()).of("extreme")
    quiet = case("none of the dead is positive anywhere", (), 2, 4, 3, 2, torch.tensor([0, 1, 1, 0]).bool())
    quiet.args[1][:, 1:3] = -quiet.args[1][:, 1:3].abs()
    yield quiet.of("extreme")
    only = case("what is not used of params is not a number", (), 3, 6, 4, 2, torch.tensor([1, 0, 1, 0, 1, 0]).bool())
    for name in ("W_enc", "b_enc", "b_dec"):
        only.args[0][name][:] = torch.nan
    yield only.of("nan")


aux_k_loss = Exercise(
    "aux_k_loss",
    ends={"k_aux": lambda a: (1, a["pre"].shape[-1])},
    trained=("params", "pre"),
    difficulty=4,
    importance=4,
    minutes=18,
    learn="How a latent that is never chosen can get a gradient all the same.",
    cases=_aux_cases,
    hints=(
        "The dead latents form a small autoencoder of their own, whose only job is what the living have missed.",
        "Print `pre.shape` and `dead.shape`: which axis of `dead` is missing? After the mask, how many non-zero values has a row, and how many may it have?",
        "`speaking = pre.relu() * dead.unsqueeze(-2)`; of it the k_aux largest per row, as in `topk_acts`. Decode them: with or without the bias, if the target is `x - x_hat`? And what should an SAE without dead latents return?",
    ),
    verified="more dead latents than may speak, fewer, none; the error itself as target, no bias in the decoding.",
    next="the target is a constant: pass `x_hat.detach()`, or the living latents are pulled towards a worse reconstruction.",
)


def _aux(params, pre, x, x_hat, dead, k_aux, *, bias=False, target="error", who="dead", count="k", relu=True, none="zero", dims="sum"):
    mask = {"dead": dead, "alive": ~dead, "all": torch.ones_like(dead)}[who].unsqueeze(-2)
    value = (pre.relu() if relu else pre.masked_fill(~mask, -torch.inf)) * (mask if relu else 1)
    if count == "k":
        top, places = value.topk(min(k_aux, pre.shape[-1]), dim=-1)
        top = top.masked_fill(top == -torch.inf, 0)
        value = torch.zeros_like(pre).scatter(-1, places, top)
    guess = decoded(params, value) if bias else value @ params["W_dec"]
    aim = {"error": x - x_hat, "x": x, "reversed": x_hat - x}[target]
    loss = (aim - guess).square()
    loss = (loss.sum(-1) if dims == "sum" else loss.mean(-1)).mean(-1)
    return loss * dead.any(-1) if none == "zero" else loss


for _slug, _options, _message in (
    ("bias-in-decoding", {"bias": True}, "You added the decoder bias. The target is an error, and the error's origin is 0: the dead latents would learn to write -b_dec."),
    ("target-is-x", {"target": "x"}, "The dead latents reconstruct x itself. What is needed from them is what the living leave over: x - x_hat."),
    ("target-reversed", {"target": "reversed"}, "The target is x_hat - x: the dead latents learn to write the error with the wrong sign, and double it when they wake."),
    ("living-speak", {"who": "alive"}, "The mask is the wrong way round: your living latents speak, and the dead stay dead."),
    ("everyone-speaks", {"who": "all"}, "All latents compete for the k_aux places. The living are louder: the dead still get no gradient."),
    ("all-dead-speak", {"count": "all"}, "Every dead latent speaks in every row. At most k_aux may, the largest."),
    ("negatives-speak", {"relu": False}, "Negative values are decoded. A latent that points away from the error would be paid for it."),
    ("loss-without-dead", {"none": "keep"}, "An SAE without dead latents gets a loss too: the error's own size. It should be 0."),
    ("averaged-over-dimensions", {"dims": "mean"}, "You averaged the squared error over the dimensions; it is summed."),
):
    aux_k_loss.mistake(_slug, _message)(partial(_aux, **_options))


@aux_k_loss.variant
def _(params, pre, x, x_hat, dead, k_aux):
    """A threshold at the k-th dead value."""
    value = torch.where(dead.unsqueeze(-2), pre, -torch.inf)
    k = min(k_aux, pre.shape[-1])
    kth = value.sort(dim=-1, descending=True).values[..., k - 1 : k]
    acts = torch.where((value >= kth) & (value > 0), value, 0)
    loss = ((x - x_hat - acts @ params["W_dec"]) ** 2).sum(-1).mean(-1)
    return torch.where(dead.any(-1), loss, 0)


@aux_k_loss.variant
@for_each_sae
def _(params, pre, x, x_hat, dead, k_aux):
    """Only the dead part of the dictionary."""
    if not dead.any():
        return x.new_zeros(())
    own = pre[:, dead].relu()
    values, places = own.topk(min(k_aux, own.shape[1]), dim=1)
    acts = torch.zeros_like(own).scatter(1, places, values)
    return (acts @ params["W_dec"][dead] - (x - x_hat)).norm(dim=1).square().mean()


@aux_k_loss.variant
@for_each_sae
def _(params, pre, x, x_hat, dead, k_aux):
    """A loop over rows."""
    total = x.new_zeros(())
    for row, goal in zip(pre, x - x_hat):
        speaks = sorted((s for s in range(len(dead)) if dead[s] and row[s] > 0), key=lambda s: -row[s])[:k_aux]
        guess = sum((row[s] * params["W_dec"][s] for s in speaks), torch.zeros_like(goal))
        total = total + ((goal - guess) ** 2).sum()
    return total / len(x) * dead.any()


# --- resample_dead -----------------------------------------------------------------------------------------

def _resample_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, d_in: int, d_sae: int, n: int, dead: list[int], dtype: torch.dtype) -> Case:
        x, error = 3 * normal(rng, n, d_in, dtype=dtype), normal(rng, n, d_in, dtype=dtype)
        # The worst row stands second, the next first, the third last: no order of the file is the right one.
        error = error[error.norm(dim=1).argsort()].roll(2, 0)
        return Case(label, sae_params(rng, (), d_in, d_sae, dtype), x, x + error, torch.tensor(dead).bool())

    yield case("3 dead latents of 7", 4, 7, 9, [0, 1, 0, 0, 1, 1, 0], torch.float64)
    yield case("1 dead latent of 5, float32", 3, 5, 8, [0, 0, 0, 1, 0], torch.float32)
    yield case("none dead", 3, 4, 6, [0, 0, 0, 0], torch.float64)
    near = case("two errors that are almost equal", 2, 4, 3, [0, 1, 0, 1], torch.float64)
    error = torch.tensor([[3.0, 4.0], [0.5, 0.0], [-4.0, 3.00001]], dtype=torch.float64)
    yield Case(near.label, near.args[0], near.args[1], near.args[1] + error, near.args[3]).of("boundary")
    yield case("one alive, a row for each of the dead", 3, 5, 4, [1, 1, 0, 1, 1], torch.float64).of("extreme")
    yield case("one dimension, one row", 1, 2, 1, [1, 0], torch.float64).of("extreme")
    gone = case("dead latents that had blown up", 3, 5, 6, [0, 1, 0, 0, 1], torch.float64)
    params, dead = gone.args[0], gone.args[3]
    params["W_enc"][:, dead], params["b_enc"][dead], params["W_dec"][dead] = torch.nan, torch.inf, torch.nan
    yield gone.of("nan")


resample_dead = Exercise(
    "resample_dead",
    new=True,
    without=NOT_TRAINED,
    difficulty=4,
    importance=3,
    minutes=15,
    learn="How dead latents are given a second life, and how quietly they should begin it.",
    cases=_resample_cases,
    hints=(
        "Rank the rows by how badly they are reconstructed. Each dead latent takes one and makes its direction its own.",
        "Print the shapes of `params['W_dec'][dead]` and `params['W_enc'][:, dead]`. Which of the two needs the directions transposed?",
        "`argsort(descending=True)` of one error per row, cut to as many as there are dead. Clone every parameter, then three assignments at `dead`; only one of them has the factor 0.2.",
    ),
    verified="several dead latents in the order of the errors, one, none; living latents untouched, inputs too.",
    next="the optimiser has not heard of this: its memory of the old latents is still there. Chapter 25 has a broken script about that.",
)


def _resample(params, x, x_hat, dead, *, best=False, origin=True, unit=True, loud=False, enc="dir", bias=True, order=False, norms="alive", replace_all=False, error=False):
    worst = (x - x_hat).square().sum(-1).argsort(descending=not best)[: int(dead.sum())]
    if order:
        worst = worst.sort().values
    aim = (x - x_hat)[worst] if error else x[worst] - (params["b_dec"] if origin else 0)
    directions = normalize(aim, dim=-1) if unit else aim
    new = {k: v.clone() for k, v in params.items()}
    new["W_dec"][dead] = directions
    length = params["W_enc"][:, ~dead if norms == "alive" else slice(None)].norm(dim=0).mean()
    if enc == "dir":
        new["W_enc"][:, dead] = (1 if loud else 0.2) * length * normalize(aim, dim=-1).T
    if bias:
        new["b_enc"][dead] = 0
    return new


for _slug, _options, _message in (
    ("best-rows", {"best": True}, "You took the rows that are reconstructed best. There is nothing left to learn there."),
    ("rows-in-file-order", {"order": True}, "The right rows, in the order of the file. The first dead latent gets the worst row, the second the next."),
    ("origin-not-removed", {"origin": False}, "Your directions are those of x. The encoder sees x - b_dec, so that is the direction that it can answer to."),
    ("not-unit", {"unit": False}, "The new decoder rows do not have length 1."),
    ("full-strength", {"loud": True}, "The new encoder columns are as long as the living ones'. A newcomer at full strength disturbs every row it fires on: 0.2 of that was asked for."),
    ("encoder-left", {"enc": "old"}, "The encoder columns are the old ones. What made the latents dead is still there."),
    ("bias-left", {"bias": False}, "The encoder bias is the old one. A very negative bias is a common cause of death."),
    ("dead-norms-counted", {"norms": "all"}, "The average length of the encoder columns includes the dead ones, which may have shrunk to nothing or exploded."),
    ("error-as-direction", {"error": True}, "You used the reconstruction *error* of the worst rows as direction. A good idea with another name; here it is the row itself, minus the decoder bias."),
):
    resample_dead.mistake(_slug, _message)(partial(_resample, **_options))


@resample_dead.variant
def _(params, x, x_hat, dead):
    """topk and index assignment."""
    rows = (x_hat - x).norm(dim=1).topk(int(dead.sum())).indices
    aims = x[rows] - params["b_dec"]
    aims = aims / aims.norm(dim=1, keepdim=True)
    W_enc, b_enc, W_dec = params["W_enc"].clone(), params["b_enc"].clone(), params["W_dec"].clone()
    places = dead.nonzero()[:, 0]
    W_enc[:, places] = aims.mT * (W_enc[:, ~dead].pow(2).sum(0).sqrt().mean() / 5)
    W_dec[places], b_enc[places] = aims, 0.0
    return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": params["b_dec"].clone()}


@resample_dead.variant
def _(params, x, x_hat, dead):
    """A loop over dead latents."""
    new = {k: v.clone() for k, v in params.items()}
    length = torch.stack([column.norm() for column, gone in zip(params["W_enc"].T, dead) if not gone]).mean()
    order = sorted(range(len(x)), key=lambda i: -float(((x[i] - x_hat[i]) ** 2).sum()))
    for i, s in zip(order, dead.nonzero()[:, 0].tolist()):
        aim = x[i] - params["b_dec"]
        new["W_dec"][s] = aim / aim.norm()
        new["W_enc"][:, s] = length / 5 * aim / aim.norm()
        new["b_enc"][s] = 0
    return new


@resample_dead.variant
def _(params, x, x_hat, dead):
    """torch.where on full matrices."""
    order = (x - x_hat).square().sum(1).sort(descending=True).indices
    place = (dead.cumsum(0) - 1).clamp(min=0)
    aims = normalize(x[order[place]] - params["b_dec"], dim=1)
    length = params["W_enc"].norm(dim=0)[~dead].mean()
    return {"W_enc": torch.where(dead, 0.2 * length * aims.T, params["W_enc"]), "b_enc": torch.where(dead, 0, params["b_enc"]),
            "W_dec": torch.where(dead[:, None], aims, params["W_dec"]), "b_dec": params["b_dec"].clone()}
