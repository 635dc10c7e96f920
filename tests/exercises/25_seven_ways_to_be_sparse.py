"""The exercises of chapter 25: cases, named mistakes, other right answers and hints."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from utils.course.battery import ALL_COUNTS, NO_MATRIX, NO_THRESHOLD, NOT_TRAINED
from utils.course.cases import as_leaves, decoded, for_each_sae, normal, pre_acts, sae_params, top_k, uniform
from utils.course.exercises import Case, Exercise

_BY_HAND = {"gradient": "it computes gradients by hand: nothing is trained through it"}


# --- batch_topk_acts ---------------------------------------------------------------------------------------

def _batch_topk_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("6 rows, 5 latents, k = 2", normal(rng, 6, 5), 2)
    few = -normal(rng, 3, 4).abs()
    few[0, 2], few[2, 1] = 1.5, 0.25
    few.requires_grad_()
    yield Case("two positive values, k * n = 6, in training", few, 2)
    pre = 1 + normal(rng, 2, 4, 7, dtype=torch.float32)
    yield Case("2 SAEs at once, one of them louder, float32", pre * torch.tensor([1.0, 30.0])[:, None, None], 2)
    near = torch.tensor([[1.0, 2.0, 2.0 + 1e-12], [-1.0, 3.0, 0.0]], dtype=torch.float64)
    yield Case("the last that is kept is a hair above the next", near, 1).of("boundary")
    yield Case("exactly as many positive as may be kept, and a 0", near, 2).of("boundary")
    yield Case("a hair above, from right to left", near.flip(1), 1).of("boundary")
    yield Case("k = d_sae, everything positive", 1 + uniform(rng, 3, 4), 4).of("extreme")
    yield Case("one row, one latent", torch.tensor([[0.25]], dtype=torch.float64), 1).of("extreme")
    pre = normal(rng, 3, 2, 4).transpose(0, 1)
    pre[:, 0, 0], pre[:, 1, 1] = 0.7, -0.4
    yield Case("2 SAEs at once, k = d_sae, some negative, not contiguous, and the gradient", pre, 4).with_gradient(pre=0).of("extreme")


batch_topk_acts = Exercise(
    "batch_topk_acts",
    ends={"k": lambda a: (1, a["pre"].shape[-1])},
    trained=("pre",),
    without=ALL_COUNTS,
    difficulty=3,
    importance=4,
    minutes=12,
    learn="How a budget can be fixed for the batch and free for the row, and what that owes the day of inference.",
    cases=_batch_topk_cases,
    hints=(
        "It is `topk_acts` with one long row: all the values of the batch side by side. Then they have to go back to their places.",
        "Print `pre.flatten(-2).shape`. How many values may stay in it? And is the smallest kept value a number, or one per SAE?",
        "`values, places = pre.relu().flatten(-2).topk(..., dim=-1)`: how many? Scatter them into zeros, `unflatten` the last axis, and let values that are not positive not take part in the minimum (infinity never wins one).",
    ),
    verified="rich rows and poor ones, fewer positive values than places, a loud SAE beside a quiet one.",
    next="take one row out of the batch: may the latents of the others change?",
)


def _smallest(acts):
    return acts.masked_fill(acts <= 0, torch.inf).flatten(-2).min(dim=-1).values


def _btk(pre, count):
    flat = pre.relu().flatten(-2)
    values, places = flat.topk(count, dim=-1)
    acts = torch.zeros_like(flat).scatter(-1, places, values).reshape(pre.shape)
    return acts, _smallest(acts)


@batch_topk_acts.mistake("k-per-row", "Every row kept k of its own: that is TopK. A rich row may use more, a poor one fewer.")
def _(pre, k):
    acts = top_k(pre.relu(), k)
    return acts, _smallest(acts)


@batch_topk_acts.mistake("k-in-all", "You kept k values in the whole batch. The budget is k for each of the n rows.")
def _(pre, k):
    return _btk(pre, k)


@batch_topk_acts.mistake("saes-compete", "You flattened the SAEs as well, so that a loud one takes places from a quiet one. Each has its own budget.")
def _(pre, k):
    flat = pre.relu().flatten()
    values, places = flat.topk(k * (pre.numel() // pre.shape[-1]))
    acts = torch.zeros_like(flat).scatter(-1, places, values).reshape(pre.shape)
    return acts, _smallest(acts)


@batch_topk_acts.mistake("threshold-counts-zeros", "Your smallest value is 0, or not one that was kept: look only at the positive values of `acts`.")
def _(pre, k):
    acts, _ = _btk(pre, k * pre.shape[-2])
    return acts, acts.flatten(-2).min(dim=-1).values


@batch_topk_acts.mistake(
    "threshold-counts-negatives",
    "Your threshold is negative: it is the smallest of the values that were chosen, and not every one of these is on. Where fewer are positive than may be kept, the smallest *positive* one counts.",
)
def _(pre, k):
    acts, _ = _btk(pre, k * pre.shape[-2])
    return acts, pre.flatten(-2).topk(k * pre.shape[-2], dim=-1).values.min(dim=-1).values


@batch_topk_acts.mistake("threshold-is-largest-dropped", "You returned the largest value that was *not* kept.")
def _(pre, k):
    acts, _ = _btk(pre, k * pre.shape[-2])
    return acts, pre.masked_fill(acts > 0, -torch.inf).flatten(-2).max(dim=-1).values


@batch_topk_acts.mistake("mean-threshold", "You averaged the kept values. The threshold lies at the bottom of what was kept, not in its middle.")
def _(pre, k):
    acts, _ = _btk(pre, k * pre.shape[-2])
    return acts, acts.flatten(-2).sum(-1) / (acts > 0).flatten(-2).sum(-1)


@batch_topk_acts.mistake("along-the-latents", "Each *latent* kept its k largest rows. All values of the batch compete with each other.")
def _(pre, k):
    acts = top_k(pre.relu(), min(k, pre.shape[-2]), dim=-2)
    return acts, _smallest(acts)


@batch_topk_acts.variant
def _(pre, k):
    """A threshold at the (k n)-th value."""
    flat = pre.flatten(-2).sort(dim=-1, descending=True).values
    lowest = flat[..., k * pre.shape[-2] - 1][..., None, None]
    acts = torch.where((pre >= lowest) & (pre > 0), pre, 0)
    return acts, _smallest(acts)


@batch_topk_acts.variant
def _(pre, k):
    """kthvalue, one SAE after the other."""
    if pre.ndim == 2:
        flat = pre.flatten()
        lowest = flat.kthvalue(len(flat) - k * len(pre) + 1).values
        acts = pre.clamp(min=0) * (pre >= lowest)
        return acts, acts[acts > 0].min()
    acts, low = zip(*[(a := one.clamp(min=0) * (one >= one.flatten().kthvalue(one.numel() - k * len(one) + 1).values), a[a > 0].min()) for one in pre])
    return torch.stack(acts), torch.stack(low)


@batch_topk_acts.variant
def _(pre, k):
    """Ranks in the whole batch."""
    rank = pre.flatten(-2).argsort(dim=-1, descending=True).argsort(dim=-1).reshape(pre.shape)
    acts = pre.relu() * (rank < k * pre.shape[-2])
    return acts, torch.where(acts > 0, acts, torch.inf).amin((-1, -2))


# --- jumprelu_gradients ------------------------------------------------------------------------------------

def _jump_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], n: int, d_sae: int, dtype: torch.dtype) -> Case:
        theta = 0.4 + uniform(rng, *lead, d_sae)
        # Half of the values lie near their threshold, on both sides; the others anywhere.
        near = theta.unsqueeze(-2) + 0.6 * (uniform(rng, *lead, n, d_sae) - 0.5)
        pre = torch.where(torch.rand(*lead, n, d_sae, generator=rng) < 0.6, near, 2 * normal(rng, *lead, n, d_sae))
        return Case(label, pre.to(dtype), theta.to(dtype), normal(rng, *lead, n, d_sae, dtype=dtype), 0.7, 0.3)

    yield case("8 rows, 5 latents", (), 8, 5, torch.float64)
    yield case("2 SAEs at once", (2,), 7, 4, torch.float64)
    yield case("one row", (), 1, 6, torch.float64).of("extreme")
    pre = torch.tensor([[1.0, 2.25, 0.75], [0.75, 2.0, 1.25], [1.25, 1.75, 0.0], [1.375, 1.625, 0.625]], dtype=torch.float64)
    theta = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    yield Case("values exactly at the threshold and at the ends of the window", pre, theta, normal(rng, 4, 3), 0.25, 0.5).of("boundary")
    yield Case("nothing near a threshold, active latents are free", 5 + uniform(rng, 4, 2), theta[:2], normal(rng, 4, 2), 0.0, 0.1).of("extreme")
    yield Case("a window with everything in it", normal(rng, 4, 3), theta, normal(rng, 4, 3), 2.0, 50.0).of("extreme")
    yield Case("active latents are free", *case("", (), 8, 3, torch.float64).args[:3], 0.0, 0.3).of("extreme")


jumprelu_gradients = Exercise(
    "jumprelu_gradients",
    without={**_BY_HAND, **ALL_COUNTS},
    difficulty=5,
    importance=4,
    minutes=30,
    learn="How a threshold can be trained although its true gradient is zero almost everywhere.",
    cases=_jump_cases,
    hints=(
        "Raise one threshold by a hair. Only values in that hair change: they fall from about theta to 0, and each saves one unit of L0. How many are there? Count in a wider window and divide by its width.",
        "Make `window`, shaped like `pre`: 1 / bandwidth inside, 0 outside. Print `window.sum(dim=-2).shape`: is it theta's shape?",
        "For one latent and one value inside the window, write down (a) what the loss changes by when that value falls from theta to 0, in terms of `grad_acts`, and (b) what the price changes by, which is a mean over rows. Weigh each with `window`, add over the rows, and mind the sign: theta goes *up*. `grad_pre` has nothing to do with the window.",
    ),
    verified="values on both sides of the threshold, both parts of the loss, one row, several SAEs at once.",
    next="both parts have a minus sign, and they pull against each other: `grad_acts` is negative where the latent is wanted.",
)


def _jump(pre, theta, grad_acts, l0, bandwidth, *, half=0.5, value=True, density=True, sign=-1, rows="sum", price="mean", part="both", through=False, side=None):
    t = theta.unsqueeze(-2)
    window = ((pre - t).abs() < bandwidth * half).to(pre.dtype)
    if side == "above":
        window = window * (pre > t)
    if density:
        window = window / bandwidth
    lost = grad_acts * (t if value else 1) * window
    lost = lost.sum(-2) if rows == "sum" else lost.mean(-2)
    saved = l0 * (window.mean(-2) if price == "mean" else window.sum(-2))
    total = {"both": lost + saved, "lost": lost, "saved": saved}[part]
    on = torch.ones_like(pre, dtype=torch.bool) if through == "all" else pre > t
    grad_pre = grad_acts * on
    if through == "price":
        grad_pre = grad_pre + grad_acts * t * window
    return grad_pre, sign * total


for _slug, _options, _message in (
    ("sign-reversed", {"sign": 1}, "grad_theta has the wrong sign. Raising a threshold *removes* value and *saves* price: both parts are negative of what is in the window."),
    ("theta-forgotten", {"value": False}, "A latent that is switched off loses its value, which at the threshold is theta. That factor is missing."),
    ("not-a-density", {"density": False}, "You counted the values in the window without dividing by its width. A wider window would give a larger gradient for the same thresholds."),
    ("window-twice-as-wide", {"half": 1.0}, "Your window reaches a whole bandwidth to each side. Its full width is one bandwidth: half of it below the threshold, half above."),
    ("window-above-only", {"side": "above"}, "You counted only the values above the threshold. The window is centred on it: values just below tell as much about the density there."),
    ("rows-averaged", {"rows": "mean"}, "You averaged the latents' part over the rows. `grad_acts` already is the gradient of the loss: parts add up, as in every gradient."),
    ("price-summed", {"price": "sum"}, "You summed the price over the rows. The loss has its mean over the rows, so each row's latent costs l0 / n."),
    ("price-forgotten", {"part": "lost"}, "The price of an active latent does not reach your thresholds. It is the only thing that makes them rise."),
    ("gate-ignored", {"through": "all"}, "grad_pre is `grad_acts` everywhere. Below its threshold a latent is 0 and stays 0: nothing flows there."),
    ("window-sent-to-pre", {"through": "price"}, "You sent the window's gradient to `pre` as well. That is a published variant; here theta is held fixed, and `pre` gets the formula's own derivative."),
):
    jumprelu_gradients.mistake(_slug, _message)(partial(_jump, **_options))


@jumprelu_gradients.variant
def _(pre, theta, grad_acts, l0, bandwidth):
    """einsum and torch.where."""
    distance = (pre - theta[..., None, :]) / bandwidth
    inside = torch.where(distance.abs() < 0.5, 1 / bandwidth, 0.0).to(pre.dtype)
    grad_theta = -theta * torch.einsum("...ns,...ns->...s", grad_acts, inside) - l0 / pre.shape[-2] * inside.sum(-2)
    return torch.where(distance > 0, grad_acts, 0), grad_theta


@jumprelu_gradients.variant
def _(pre, theta, grad_acts, l0, bandwidth):
    """autograd through a straight ramp that stands in for the step."""
    t = theta.detach().clone().requires_grad_()
    ramp = (pre - t.unsqueeze(-2)) / bandwidth + 0.5
    ramp = torch.where((ramp > 0) & (ramp < 1), ramp, 0)
    surrogate = (grad_acts * theta.unsqueeze(-2) * ramp).sum() + l0 * ramp.mean(-2).sum()
    (grad_theta,) = torch.autograd.grad(surrogate, t)
    return grad_acts * (pre > theta.unsqueeze(-2)), grad_theta


@jumprelu_gradients.variant
def _(pre, theta, grad_acts, l0, bandwidth):
    """A loop over rows."""
    grad_theta, n = torch.zeros_like(theta), pre.shape[-2]
    for i in range(n):
        inside = ((pre[..., i, :] - theta).abs() < bandwidth / 2).to(pre.dtype) / bandwidth
        grad_theta = grad_theta - inside * (grad_acts[..., i, :] * theta + l0 / n)
    return grad_acts.masked_fill(pre <= theta.unsqueeze(-2), 0), grad_theta


# --- gated_gradients ---------------------------------------------------------------------------------------

def _gated_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int) -> Case:
        base = sae_params(rng, lead, d_in, d_sae)
        params = {"W_enc": base["W_enc"], "b_gate": base["b_enc"], "r_mag": 0.4 * normal(rng, *lead, d_sae), "b_mag": normal(rng, *lead, d_sae),
                  "W_dec": normalize(base["W_dec"], dim=-1), "b_dec": base["b_dec"]}
        return Case(label, params, normal(rng, *lead, n, d_in), 0.6)

    yield case("9 rows, 4 dimensions, 7 latents", (), 4, 7, 9)
    yield case("2 SAEs at once", (2,), 3, 5, 6)
    yield case("one latent, one dimension, one row", (), 1, 1, 1).of("extreme")
    shut = case("no gate is open", (), 3, 4, 5)
    shut.args[0]["b_gate"] -= 100
    yield shut.of("extreme")
    # Latent 0's gate is exactly 0 in both rows. Its own reconstruction has no error there and a gate costs nothing, so that
    # only the step decides; what torch takes for the slope of a ReLU at 0 does not show.
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    params = {"W_enc": eye, "b_gate": zero, "r_mag": zero, "b_mag": zero + 2, "W_dec": eye, "b_dec": zero + 1}
    yield Case("a gate that is exactly 0", params, torch.tensor([[1.0, 4.0], [1.0, 2.5]], dtype=torch.float64), 0.0).of("boundary")
    hair = torch.tensor([1e-9, 0.0], dtype=torch.float64)
    yield Case("a gate a hair above 0", {**params, "b_gate": hair}, torch.tensor([[1.0, 4.0], [1.0, 2.5]], dtype=torch.float64), 0.0).of("boundary")


gated_gradients = Exercise(
    "gated_gradients",
    without={**_BY_HAND, **ALL_COUNTS},
    difficulty=5,
    importance=3,
    minutes=30,
    learn="How to separate the question whether a latent is on from the question how much, and which path may teach the decoder.",
    cases=_gated_cases,
    scaled=("x", "b_gate", "b_mag", "b_dec"),
    hints=(
        "A step has gradient zero, so the gate would learn nothing from the reconstruction. Its own small reconstruction teaches it, and that one must not pull at the decoder.",
        "Write the loss as a function of a dict `p`, and let `torch.func.grad(loss)(params)` differentiate it. Which tensors of the second error come from `p`, and which from the constant `params`?",
        "Inside `loss(p)` the outer `params` are constants: use their W_dec and b_dec in the second decoding, and `p`'s everywhere else. The result must be one number: a mean over rows, and over SAEs a ... (each SAE's gradient must not be diluted by the others).",
    ),
    verified="all six gradients, biases and scales that are not zero, one SAE and several at once.",
    next="take out the second error and train: the gates close, and nothing opens them again.",
)


def _gated(params, x, l1, *, frozen=("W_dec", "b_dec"), aux=1.0, price="gate", scale=torch.exp, mean=True, step=True, centred=True):
    def loss(p):
        constant = {k: (params if k in frozen else p)[k] for k in ("W_dec", "b_dec")}
        m = ((x - p["b_dec"].unsqueeze(-2)) if centred else x) @ p["W_enc"]
        gate = m + p["b_gate"].unsqueeze(-2)
        magnitude = (m * scale(p["r_mag"]).unsqueeze(-2) + p["b_mag"].unsqueeze(-2)).relu()
        acts = (gate > 0) * magnitude if step else gate.relu() * magnitude
        errors = (x - decoded(p, acts)).square().sum(-1) + aux * (x - decoded(constant, gate.relu())).square().sum(-1)
        cost = {"gate": gate.relu(), "acts": acts, "magnitude": magnitude}[price].sum(-1)
        rows = errors + l1 * cost
        return (rows.mean(-1) if mean else rows.sum(-1)).sum()

    return torch.func.grad(loss)(params)


for _slug, _options, _message in (
    ("aux-teaches-decoder", {"frozen": ()}, "Your second error pulls at the decoder. There its W_dec and b_dec are constants: differentiate with the outer `params` in that place."),
    ("only-bias-frozen", {"frozen": ("b_dec",)}, "In the second decoding W_dec is still being trained; only b_dec is constant."),
    ("only-weights-frozen", {"frozen": ("W_dec",)}, "In the second decoding b_dec is still being trained; only W_dec is constant."),
    ("no-aux", {"aux": 0.0}, "The gate's own reconstruction is missing. Without it the gate hears only the price, and closes."),
    ("price-on-latents", {"price": "acts"}, "You put the price on the latents. It would shrink magnitudes, and a step passes nothing on to the gate: price relu(gate values)."),
    ("price-on-magnitudes", {"price": "magnitude"}, "You put the price on the magnitudes. They are supposed to be free of it: that is how gating avoids shrinkage."),
    ("scale-not-exponentiated", {"scale": lambda r: r}, "You used r_mag itself as the factor. It is a logarithm: exp(r_mag), which starts at 1 and stays positive."),
    ("rows-summed", {"mean": False}, "You summed over the rows. The loss is their mean."),
    ("gate-multiplied-in", {"step": False}, "You multiplied the magnitude with the gate's value. The gate only decides: a step, 0 or 1."),
    ("origin-not-removed", {"centred": False}, "Both paths start from x - b_dec, and yours from x."),
):
    gated_gradients.mistake(_slug, _message)(partial(_gated, **_options))


def _gated_loss(p, x, l1, W_dec, b_dec):
    m = torch.einsum("...nd,...ds->...ns", x - p["b_dec"][..., None, :], p["W_enc"])
    gate = torch.relu(m + p["b_gate"][..., None, :])
    acts = torch.where(gate > 0, torch.relu(m * p["r_mag"].exp()[..., None, :] + p["b_mag"][..., None, :]), 0)
    first = x - acts @ p["W_dec"] - p["b_dec"][..., None, :]
    second = x - gate @ W_dec - b_dec[..., None, :]
    return ((first**2).sum() + (second**2).sum() + l1 * gate.sum()) / x.shape[-2]


@gated_gradients.variant
def _(params, x, l1):
    """autograd with leaves and detach."""
    leaves = {k: v.detach().clone().requires_grad_() for k, v in params.items()}
    loss = _gated_loss(leaves, x, l1, leaves["W_dec"].detach(), leaves["b_dec"].detach())
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))


@gated_gradients.variant
def _(params, x, l1):
    """backward and .grad."""
    leaves = {k: v.clone().requires_grad_() for k, v in params.items()}
    _gated_loss(leaves, x, l1, params["W_dec"], params["b_dec"]).backward()
    return {k: v.grad for k, v in leaves.items()}


@gated_gradients.variant
def _(params, x, l1):
    """The three terms differentiated apart, and added."""
    def one(p):
        return _gated_loss(p, x, l1, params["W_dec"].detach(), params["b_dec"].detach()) - l1 * price(p)

    def price(p):
        return ((x - p["b_dec"][..., None, :]) @ p["W_enc"] + p["b_gate"][..., None, :]).relu().sum() / x.shape[-2]

    a, b = torch.func.grad(one)(params), torch.func.grad(price)(params)
    return {k: a[k] + l1 * b[k] for k in params}


# --- matryoshka_loss ---------------------------------------------------------------------------------------

def _matryoshka_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int, widths: list[int], dtype: torch.dtype) -> Case:
        params = sae_params(rng, lead, d_in, d_sae, dtype)
        return Case(label, params, normal(rng, *lead, n, d_sae, dtype=dtype).relu(), normal(rng, *lead, n, d_in, dtype=dtype), widths)

    yield case("widths 2, 5, 8", (), 4, 8, 9, [2, 5, 8], torch.float64)
    trained = case("widths 3, 4, in training", (), 3, 4, 5, [3, 4], torch.float64)
    yield Case(trained.label, as_leaves(trained.args[0]), *trained.args[1:])
    yield case("2 SAEs at once, widths 1, 6, float32", (2,), 5, 6, 7, [1, 6], torch.float32)
    yield case("one width", (), 2, 3, 4, [3], torch.float64).of("extreme")
    yield case("every width, one row", (), 3, 4, 1, [1, 2, 3, 4], torch.float64).of("extreme")
    silent = case("no latent is on", (), 3, 4, 5, [2, 4], torch.float64)
    silent.args[1][:] = 0
    yield silent.of("extreme")
    signed = sae_params(rng, (), 3, 4)
    yield Case("latents that are negative", signed, normal(rng, 5, 4), normal(rng, 5, 3), [1, 4]).of("negative")
    only = case("what is not used of params is not a number", (), 3, 5, 4, [2, 5], torch.float64)
    only.args[0]["W_enc"][:], only.args[0]["b_enc"][:] = torch.nan, torch.nan
    yield only.of("nan")


matryoshka_loss = Exercise(
    "matryoshka_loss",
    trained=("params", "acts"),
    without=NO_THRESHOLD,
    difficulty=3,
    importance=3,
    minutes=10,
    learn="How a dictionary is made to put first things first.",
    cases=_matryoshka_cases,
    hints=(
        "Cut the dictionary after its first few latents and ask how well that much alone reconstructs. Repeat with a longer piece.",
        "Print `acts[..., :width].shape` and `params['W_dec'][..., :width, :].shape` for the first width. Which piece of the second width's is new, and which is shared?",
        "For each width decode with `acts[..., :width]` and the rows that belong to it. Which part of the decoder is needed whole every time? Then one loss per width and SAE: stack them, and average over which axis?",
    ),
    verified="nested prefixes of uneven widths, the decoder bias in each, several SAEs at once.",
    next="the first latents are in every term. What will they prefer: the frequent or the rare features?",
)


def _nested(params, acts, x, pieces, *, bias=True, sae_dims=1):
    losses = []
    for piece in pieces:
        x_hat = acts[..., piece] @ params["W_dec"][..., piece, :] + (params["b_dec"].unsqueeze(-2) if bias else 0)
        losses.append((x - x_hat).square().sum(-1).mean(-1))
    return torch.stack(losses)


def _prefixes(widths):
    return [slice(0, w) for w in widths]


@matryoshka_loss.mistake("pieces-not-nested", "You decoded each piece by itself: latents 2 to 4 without the first two. The dolls are nested: every width starts at latent 0.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, [slice(a, b) for a, b in zip([0, *widths], widths)]).mean(0)


@matryoshka_loss.mistake("bias-missing", "The decoder bias is missing: each prefix reconstructs x, not x - b_dec.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, _prefixes(widths), bias=False).mean(0)


@matryoshka_loss.mistake("bias-once-per-doll", "You built each reconstruction on the one before and added the decoder bias every time. It is in the first already.")
def _(params, acts, x, widths):
    x_hat, losses = torch.zeros_like(x), []
    for a, b in zip([0, *widths], widths):
        x_hat = x_hat + acts[..., a:b] @ params["W_dec"][..., a:b, :] + params["b_dec"].unsqueeze(-2)
        losses.append((x - x_hat).square().sum(-1).mean(-1))
    return torch.stack(losses).mean(0)


@matryoshka_loss.mistake("summed", "You summed over the widths. With their mean, the loss stays comparable with that of a single width.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, _prefixes(widths)).sum(0)


@matryoshka_loss.mistake("last-width-only", "Only the full width counts in your loss. The short prefixes are the point.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, _prefixes(widths))[-1]


@matryoshka_loss.mistake("inner-widths-only", "The full width is missing from your loss: the last latents would learn nothing.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, _prefixes(widths[:-1])).mean(0)


@matryoshka_loss.mistake("suffixes", "You kept the *last* latents of every width. It is the first ones that have to do without the others.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, [slice(acts.shape[-1] - w, None) for w in widths]).mean(0)


@matryoshka_loss.mistake("averaged-over-dimensions", "You averaged the squared error over the dimensions; it is summed.")
def _(params, acts, x, widths):
    return _nested(params, acts, x, _prefixes(widths)).mean(0) / x.shape[-1]


@matryoshka_loss.variant
def _(params, acts, x, widths):
    """A mask instead of a slice."""
    place = torch.arange(acts.shape[-1])
    errors = [(x - decoded(params, acts * (place < w))).pow(2).sum(-1).mean(-1) for w in widths]
    return sum(errors) / len(errors)


@matryoshka_loss.variant
def _(params, acts, x, widths):
    """Each reconstruction built on the one before."""
    x_hat, total = params["b_dec"][..., None, :], 0
    for a, b in zip([0, *widths], widths):
        x_hat = x_hat + acts[..., a:b] @ params["W_dec"][..., a:b, :]
        total = total + ((x - x_hat) ** 2).sum((-1, -2)) / x.shape[-2]
    return total / len(widths)


@matryoshka_loss.variant
def _(params, acts, x, widths):
    """What is left over, latent by latent."""
    left, losses = x - params["b_dec"][..., None, :], []
    for s in range(acts.shape[-1]):
        left = left - acts[..., s : s + 1] * params["W_dec"][..., s : s + 1, :]
        if s + 1 in widths:
            losses.append(left.square().sum(-1).mean(-1))
    return torch.stack(losses, dim=-1).mean(-1)


# --- prolu -------------------------------------------------------------------------------------------------

def _prolu_cases(rng: torch.Generator) -> Iterator[Case]:
    b = -uniform(rng, 5)
    b[3] = 0.6
    m = normal(rng, 9, 5)
    m[4, 3] = -0.3
    yield Case("9 rows, 5 latents, one bias positive", m, b, normal(rng, 9, 5))
    yield Case("2 SAEs at once, float32", normal(rng, 2, 8, 3, dtype=torch.float32), normal(rng, 2, 3, dtype=torch.float32) / 2, normal(rng, 2, 8, 3, dtype=torch.float32))
    m = torch.tensor([[0.5, 0.0, 0.0, -0.5], [1.0, 0.25, -0.25, 0.75], [0.25, -0.25, 0.5, 0.0]], dtype=torch.float64)
    b = torch.tensor([-0.5, 0.5, 0.25, 0.0], dtype=torch.float64)
    yield Case("m or m + b exactly 0", m, b, 1 + uniform(rng, 3, 4)).of("boundary")
    yield Case("one row, biases of 0", normal(rng, 1, 4), 0 * b, normal(rng, 1, 4)).of("extreme")
    yield Case("nothing is on", normal(rng, 5, 4), b - 100, normal(rng, 5, 4)).of("extreme")


prolu = Exercise(
    "prolu",
    without={**_BY_HAND, **ALL_COUNTS},
    difficulty=3,
    importance=2,
    minutes=12,
    learn="A way to switch weak latents off that takes nothing from the strong ones.",
    cases=_prolu_cases,
    hints=(
        "Compare a ReLU of m + b with this: both are off in the same places when b is negative. What differs where they are on?",
        "Write down m = 1 with b = +0.5, and m = -0.2 with b = +0.5. What does the definition say for each?",
        "Make `on` of two comparisons. The latents are m where it is true; and which of the two gradients has b's shape, so that the rows have to be added up?",
    ),
    verified="negative and positive biases, the value and both gradients, several SAEs at once.",
    next="draw relu(m - 1) and this function with b = -1 on one sheet: the distance between them is shrinkage.",
)


def _pro(m, b, grad_acts, *, shift=False, both=True, rows="sum", second=True, sign=1, gate=True, zero=False):
    on = m + b.unsqueeze(-2) > 0
    if both:
        on = on & (m > 0)
    if zero:
        on = (m + b.unsqueeze(-2) >= 0) & (m >= 0)
    if not second:
        on = m > 0
    grad_b = grad_acts * (on if gate else 1)
    grad_b = {"sum": grad_b.sum(-2), "mean": grad_b.mean(-2), "none": torch.zeros_like(b)}[rows]
    return (m + b.unsqueeze(-2) if shift else m) * on, grad_acts * on, sign * grad_b


for _slug, _options, _message in (
    ("plain-relu", {"shift": True}, "You returned m + b where the latent is on: an ordinary ReLU. The bias decides here, and takes nothing away."),
    ("positive-bias-opens", {"both": False}, "With a positive bias your latent is on for negative m, and is negative. Both m and m + b must be positive."),
    ("bias-ignored", {"second": False}, "Your latent is on wherever m is positive: the bias has no say."),
    ("bias-untrained", {"rows": "none"}, "grad_b is the true derivative, zero. A bias with no gradient stays where it started: use that of relu(m + b)."),
    ("rows-averaged", {"rows": "mean"}, "You averaged grad_b over the rows. It is a sum: every row pulls at the same bias."),
    ("sign-reversed", {"sign": -1}, "grad_b has the wrong sign: relu(m + b) grows when b grows."),
    ("zero-is-on", {"zero": True}, "A latent is on where m or m + b is exactly 0. Both must be positive: `>`, not `>=`."),
    ("off-latents-teach-bias", {"gate": False}, "Rows in which the latent is off pull at its bias. They would not in relu(m + b)."),
):
    prolu.mistake(_slug, _message)(partial(_pro, **_options))


@prolu.variant
def _(m, b, grad_acts):
    """A threshold at max(0, -b)."""
    on = m > (-b).clamp(min=0)[..., None, :]
    grad = torch.where(on, grad_acts, 0)
    return torch.where(on, m, 0), grad, torch.einsum("...ns->...s", grad)


@prolu.variant
def _(m, b, grad_acts):
    """The gradient of relu(m + b), by autograd, where the latent is on."""
    on = (m > 0) & (m + b.unsqueeze(-2) > 0)
    leaves = m.clone().requires_grad_(), b.clone().requires_grad_()
    out = ((leaves[0] + leaves[1].unsqueeze(-2)).relu() * on * grad_acts).sum()
    return m.relu() * on, *torch.autograd.grad(out, leaves)


@prolu.variant
def _(m, b, grad_acts):
    """masked_fill, a loop for the bias."""
    off = (m <= 0) | (m + b.unsqueeze(-2) <= 0)
    grad_b = torch.zeros_like(b)
    for i in range(m.shape[-2]):
        grad_b = grad_b + grad_acts[..., i, :] * ~off[..., i, :]
    return m.masked_fill(off, 0), grad_acts.masked_fill(off, 0), grad_b


# --- the bug zoo: diagnosis --------------------------------------------------------------------------------

_BUGS = {
    1: "bias-not-returned",
    2: "stale-moments",
    3: "batch-decides",
    4: "wrong-axis",
    5: "aux-disagrees",
    6: "unnormalised-eval",
    7: "sync-bypassed",
    8: "kernel-drops-gradient",
}


def _diagnosis_cases(rng: torch.Generator) -> Iterator[Case]:
    for script in (torch.randperm(8, generator=rng) + 1).tolist():
        yield Case(f"script {script}", script)


diagnosis_sae = Exercise(
    "diagnosis_sae",
    ends={"script": lambda a: (1, 8)},
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS, **NO_MATRIX, "scale": "the number of a script has no scale",
             "negative": "scripts are numbered from 1", "extreme": "all eight scripts are asked about"},
    reveal=False,
    difficulty=4,
    importance=5,
    minutes=40,
    learn="How to get from a symptom to the line that causes it, in training code that raises no error.",
    cases=_diagnosis_cases,
    hints=(
        "Say for each script what its curve should be at the end: 1, 0, near 0.9? Then ask which line could keep it from getting there.",
        "Take the pieces of a script one by one and try each on two rows that you made up: what should it give, and what does it? Where a gradient is made by hand, compare it with what `torch.autograd` gives.",
        'For each of the ten names, write the sentence that a healthy script would fulfil: "a row alone gives what it gives in company", "all machines step alike". Test the sentences on the scripts. Two of the ten names are not needed.',
    ),
    verified="eight scripts, eight names, each in its place.",
    next="the repairs below. Write each as if you did not know the bug: from the specification.",
)


def _but(**wrong: str):
    """The right diagnosis except for the given scripts, as s3="...": one wrong idea at a time."""
    table = _BUGS | {int(key[1:]): name for key, name in wrong.items()}
    return lambda script: table[script]


diagnosis_sae.mistake(
    "scale-blamed-for-origin",
    "Script 1 tests what it was trained on: the same scale, divided out before the encoder and multiplied in behind the decoder. Follow the mean activation through both.",
)(_but(s1="unnormalised-eval"))
diagnosis_sae.mistake(
    "aux-blamed-for-origin",
    "Scripts 1 and 5 are exchanged. In both the decoder bias is in the wrong place: in one it is missing from the reconstruction, in the other it is one time too many in a reconstruction of an *error*.",
)(_but(s1="aux-disagrees", s5="bias-not-returned"))
diagnosis_sae.mistake(
    "shard-blamed",
    "Script 2 evaluates on good activations, and the wrong shard ended at step 100. All weights are new since then. What is not?",
)(_but(s2="unnormalised-eval"))
diagnosis_sae.mistake(
    "nothing-evaluated",
    "Script 3 averages over 512 rows, never over none. Change one row of a batch: do the latents of the others stay?",
)(_but(s3="empty-average"))
diagnosis_sae.mistake(
    "leak-blamed",
    "Script 4 has a price that could leak, and a rescaling that should prevent it. Print the length of each decoder row behind the rescaling: does it do what it is for?",
)(_but(s4="scale-leak"))
diagnosis_sae.mistake(
    "kernel-blamed-for-target",
    "Script 5 has no hand-written backward pass: its gradients are right, for a loss that is not. Which space is the target in, and which the decoding?",
)(_but(s5="kernel-drops-gradient"))
diagnosis_sae.mistake(
    "target-blamed-for-kernel",
    "Script 8's target and decoding agree: an error, and no bias. Compare its gradients with those of `(values[..., None] * W_dec[places]).sum(1)` under autograd.",
)(_but(s8="aux-disagrees"))
diagnosis_sae.mistake(
    "bias-blamed-for-scale",
    "Script 6 uses `sae_forward`, which puts the bias back. Print the average length of what was trained on and of what is evaluated.",
)(_but(s6="bias-not-returned"))
diagnosis_sae.mistake(
    "moments-blamed-for-copies",
    "Script 7's machines start equal and have optimisers of their own with equal memories. They would stay equal if they saw the same gradient. Which of the four parameters' gradients is not shared?",
)(_but(s7="stale-moments"))


@diagnosis_sae.variant
def _(script):
    """A dict."""
    return dict(_BUGS)[script]


@diagnosis_sae.variant
def _(script):
    """A list, built from one string."""
    text = "bias-not-returned stale-moments batch-decides wrong-axis aux-disagrees unnormalised-eval sync-bypassed kernel-drops-gradient"
    return text.split()[script - 1]


@diagnosis_sae.variant
def _(script):
    """Conditions."""
    if script <= 4:
        return ("bias-not-returned" if script == 1 else "stale-moments") if script < 3 else "batch-decides" if script == 3 else "wrong-axis"
    if script in (5, 6):
        return "aux-disagrees" if script == 5 else "unnormalised-eval"
    return {7: "sync-bypassed"}.get(script, "kernel-drops-gradient")


# --- reconstruct -------------------------------------------------------------------------------------------

def _reconstruct_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int, dtype: torch.dtype) -> Case:
        params = sae_params(rng, lead, d_in, d_sae, dtype)
        scale = (2 + 3 * uniform(rng, *lead)).to(dtype)
        return Case(label, {key: params[key] for key in ("W_dec", "b_dec")}, normal(rng, *lead, n, d_sae, dtype=dtype).relu(), scale)

    yield case("9 rows, 7 latents, 4 dimensions", (), 4, 7, 9, torch.float64)
    yield case("as many rows as dimensions", (), 5, 3, 5, torch.float64)
    yield case("2 SAEs with scales of their own, float32", (2,), 3, 5, 6, torch.float32)
    silent = case("no latent is on", (), 3, 4, 2, torch.float64)
    silent.args[1][:] = 0
    yield silent.of("extreme")
    one = case("one latent, one dimension, one row, a small scale", (), 1, 1, 1, torch.float64)
    yield Case(one.label, *one.args[:2], one.args[2] * 1e-4).of("extreme")
    only = {**sae_params(rng, (), 3, 4), "W_enc": torch.full((3, 4), torch.nan), "b_enc": torch.full((4,), torch.nan)}
    yield Case("what is not used of params is not a number", only, normal(rng, 5, 4).relu(), torch.tensor(2.5, dtype=torch.float64)).of("nan")


reconstruct = Exercise(
    "reconstruct",
    trained=("params", "acts"),
    without=NO_THRESHOLD,
    difficulty=2,
    importance=4,
    minutes=6,
    learn="What is done before the encoder has to be undone after the decoder, in the opposite order.",
    cases=_reconstruct_cases,
    hints=(
        "Latents that are all zero stand for the origin of the autoencoder. Where is that in the space of x, and does the scale move it?",
        "Print `params['b_dec'].shape`, `scale.shape` and `acts.shape`. What must the shapes of the first two be, to go with [*sae, n, d_in]?",
        "The encoder's side was: minus b_dec, then divided by scale. Read it backwards.",
    ),
    verified="a bias that is not zero, a scale that is not 1, one SAE and several.",
    next="the test of a sentence: no latent on, and the mean activation comes out, whatever the scale.",
)


def _rebuilt(params, acts, scale, *, bias=1, order="scale-first", back=True, clip=False):
    size = scale[..., None, None] if back else 1 / scale[..., None, None]
    written, origin = acts @ params["W_dec"], bias * params["b_dec"].unsqueeze(-2)
    out = size * (written + origin) if order == "bias-first" else written + origin if order == "never" else size * written + origin
    return out.relu() if clip else out


for _slug, _options, _message in (
    ("origin-not-returned", {"bias": 0}, "The decoder bias is missing: with no latent on, the mean activation should come out."),
    ("origin-removed-twice", {"bias": -1}, "You subtracted the bias. It was taken off before the encoder; now it comes back."),
    ("bias-scaled", {"order": "bias-first"}, "You scaled the bias as well. It was taken off in the units of x, before the division: it comes back in the units of x, after the multiplication."),
    ("scale-forgotten", {"order": "never"}, "What the latents write is still in scaled units."),
    ("scale-inverted", {"back": False}, "You divided by the scale a second time. The encoder's side divided; this side multiplies."),
    ("through-relu", {"clip": True}, "You clipped the reconstruction at zero. Activations have negative entries."),
):
    reconstruct.mistake(_slug, _message)(partial(_rebuilt, **_options))


@reconstruct.mistake("bias-only-where-active", "Rows without an active latent came out as zero. They too have an origin: the bias.")
def _(params, acts, scale):
    return scale[..., None, None] * (acts @ params["W_dec"]) + params["b_dec"].unsqueeze(-2) * acts.mean(-1, keepdim=True)


@reconstruct.variant
def _(params, acts, scale):
    """einsum."""
    return torch.einsum("...,...ns,...sd->...nd", scale, acts, params["W_dec"]) + params["b_dec"][..., None, :]


@reconstruct.variant
def _(params, acts, scale):
    """The scale moved into the latents, the bias as one more latent that is always on."""
    W = torch.cat([params["W_dec"], params["b_dec"][..., None, :]], dim=-2)
    return torch.cat([acts * scale[..., None, None], torch.ones_like(acts[..., :1])], dim=-1) @ W


@reconstruct.variant
def _(params, acts, scale):
    """Latent by latent."""
    out = params["b_dec"][..., None, :].expand(*acts.shape[:-1], -1)
    for s in range(acts.shape[-1]):
        out = out + scale[..., None, None] * acts[..., s, None] * params["W_dec"][..., s, None, :]
    return out


# --- forget_moments ----------------------------------------------------------------------------------------

def _moment_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, replaced: Tensor) -> Case:
        params = sae_params(rng, lead, d_in, replaced.shape[-1])
        state = {name: {"exp_avg": normal(rng, *value.shape), "exp_avg_sq": normal(rng, *value.shape).square()} for name, value in params.items()}
        return Case(label, state, replaced)

    yield case("6 latents, 3 replaced, 4 dimensions", (), 4, torch.tensor([1, 0, 0, 1, 1, 0]).bool())
    yield case("2 SAEs at once, other latents in each", (2,), 3, torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0]]).bool())
    yield case("as many latents as dimensions", (), 5, torch.tensor([0, 1, 0, 0, 1]).bool())
    yield case("none replaced", (), 3, torch.zeros(4).bool()).of("extreme")
    yield case("all replaced", (), 2, torch.ones(3).bool()).of("extreme")
    again = case("a latent replaced a second time, its bias's moments 0 already", (), 3, torch.tensor([0, 1, 0, 0]).bool())
    again.args[0]["b_enc"]["exp_avg"][1] = again.args[0]["b_enc"]["exp_avg_sq"][1] = 0
    yield again.of("extreme")
    yield Case("before the first step there is no memory", {}, torch.tensor([True, False])).of("extreme")
    blown = case("moments of replaced latents that are not numbers", (), 3, torch.tensor([0, 1, 0, 1]).bool())
    for moments in blown.args[0]["W_dec"], blown.args[0]["b_enc"]:
        moments["exp_avg"][1], moments["exp_avg_sq"][3] = torch.nan, torch.inf
    blown.args[0]["W_dec"]["exp_avg_sq"][2] = torch.inf  # of a living latent: it stays
    blown.args[0]["W_enc"]["exp_avg"][:, 2] = torch.nan  # this too
    blown.args[0]["W_enc"]["exp_avg"][:, 1], blown.args[0]["W_enc"]["exp_avg_sq"][:, 3] = torch.nan, torch.inf
    yield blown.of("nan")


forget_moments = Exercise(
    "forget_moments",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD},
    difficulty=3,
    importance=3,
    minutes=10,
    learn="That an optimiser has parameters of its own, and which of them belong to one latent.",
    cases=_moment_cases,
    hints=(
        "Adam keeps two numbers for every weight. Which weights belong to a latent: a row of one matrix, a column of another, and one entry of a bias.",
        "Print the shape of each state entry beside `replaced.shape`. Where does `replaced` need an axis of length 1, for W_dec and for W_enc?",
        "One mask for each of three parameters, made of `replaced` by an axis of length 1 in the right place; `value.masked_fill(mask, 0)` does the rest. What about the fourth parameter?",
    ),
    verified="both averages of three parameters, square matrices, several SAEs, nothing replaced; the old state left alone.",
    next="should the step count of Adam's bias correction start again too? For these latents, yes: per-latent counts would be cleaner still.",
)


def _forget(state, replaced, *, keys=("exp_avg", "exp_avg_sq"), names=("W_dec", "W_enc", "b_enc"), swap=False, invert=False, value=0.0):
    gone = ~replaced if invert else replaced
    masks = {"W_dec": gone.unsqueeze(-1), "W_enc": gone.unsqueeze(-2), "b_enc": gone}
    if swap:
        masks["W_enc"] = masks["W_enc"].transpose(-1, -2)
    return {n: {k: v.masked_fill(masks[n], value) if n in names and k in keys else v.clone() for k, v in m.items()} for n, m in state.items()}


for _slug, _options, _message in (
    ("squares-kept", {"keys": ("exp_avg",)}, "The running average of the squares is still there. Adam divides by its root: that is what holds new weights back."),
    ("direction-kept", {"keys": ("exp_avg_sq",)}, "The running average of the gradients is still there: divided by squares that are now 0, it makes a giant first step in an old direction."),
    ("encoder-forgotten", {"names": ("W_dec",)}, "Only the decoder's moments are cleared. The latent's encoder column and bias were replaced too."),
    ("bias-forgotten", {"names": ("W_dec", "W_enc")}, "The encoder bias's moments are still there."),
    ("decoder-forgotten", {"names": ("W_enc", "b_enc")}, "The decoder's moments are still there. Its row was replaced like the rest of the latent."),
    ("encoder-rows", {"swap": True}, "In W_enc a latent is a *column*: your mask runs along the dimensions. It goes unnoticed when there are as many latents as dimensions."),
    ("living-cleared", {"invert": True}, "You cleared the moments of the latents that were *not* replaced."),
    ("ones", {"value": 1.0}, "You set the moments to 1. Adam starts them at 0, and so should a new latent."),
):
    forget_moments.mistake(_slug, _message)(partial(_forget, **_options))


@forget_moments.mistake("everything-cleared", "You cleared the moments of all latents. The living ones lose what Adam knows about them, and lurch.")
def _(state, replaced):
    return {name: {key: torch.zeros_like(value) for key, value in moments.items()} for name, moments in state.items()}


@forget_moments.mistake("multiplied-by-zero", "You multiplied by 0. A moment that has become infinite or no number survives that, and never leaves again: write the zeros.")
def _(state, replaced):
    stays = ~replaced
    keep = {"W_dec": stays[..., None], "W_enc": stays[..., None, :], "b_enc": stays, "b_dec": torch.tensor(True)}
    return {name: {key: value * keep[name].to(value.dtype) for key, value in moments.items()} for name, moments in state.items()}


@forget_moments.variant
def _(state, replaced):
    """One latent after the other."""
    new = {name: {key: value.clone() for key, value in moments.items()} for name, moments in state.items()}
    for *sae, latent in replaced.nonzero().tolist():
        for name, place in (("W_dec", (*sae, latent)), ("W_enc", (*sae, slice(None), latent)), ("b_enc", (*sae, latent))):
            for value in new.get(name, {}).values():
                value[place] = 0
    return new


@forget_moments.variant
def _(state, replaced):
    """Index assignment on clones."""
    new = {name: {key: value.clone() for key, value in moments.items()} for name, moments in state.items()}
    for name in new.keys() & {"W_dec", "b_enc", "W_enc"}:
        for value in new[name].values():
            (value.mT if name == "W_enc" else value)[replaced] = 0
    return new


@forget_moments.variant
def _(state, replaced):
    """torch.where."""
    new = {}
    for name, moments in state.items():
        gone = {"W_dec": replaced[..., :, None], "W_enc": replaced[..., None, :], "b_enc": replaced}.get(name, torch.tensor(False))
        new[name] = {key: torch.where(gone, 0, value) for key, value in moments.items()}
    return new


# --- acts_at_inference -------------------------------------------------------------------------------------

def _inference_cases(rng: torch.Generator) -> Iterator[Case]:
    def kept(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return (0.1 + 0.6 * uniform(rng, *shape)).to(dtype)

    yield Case("7 rows, 5 latents, 4 batches", normal(rng, 7, 5), kept(4))
    nothing = kept(6)
    nothing[[1, 4]] = torch.inf
    yield Case("two of 6 batches kept nothing", normal(rng, 8, 6), nothing)
    loud = kept(3, 5, dtype=torch.float32) * torch.tensor([0.2, 1.0, 3.0])[:, None]
    loud[1, :2] = torch.inf
    yield Case("3 SAEs with thresholds of their own, float32", normal(rng, 3, 9, 4, dtype=torch.float32) * torch.tensor([0.2, 1.0, 3.0])[:, None, None], loud)
    yield Case("one row, one batch", normal(rng, 1, 9), kept(1)).of("extreme")
    exact = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 - 1e-12], [-1.0, 0.0, 2.0]], dtype=torch.float64)
    yield Case("a value exactly at the threshold", exact, torch.tensor([0.5, 1.5, torch.inf, 1.0], dtype=torch.float64)).of("boundary")
    yield Case("all batches but one kept nothing; nothing is above the threshold", exact, torch.tensor([torch.inf, torch.inf, 9.0], dtype=torch.float64)).of("extreme")
    yield Case("all batches but one kept nothing; some values are above", exact, torch.tensor([torch.inf, 1.0, torch.inf], dtype=torch.float64)).of("extreme")
    yield Case("thresholds of higher precision than the values", exact.float(), torch.tensor([0.5, 1.25], dtype=torch.float64)).of("extreme")


acts_at_inference = Exercise(
    "acts_at_inference",
    without={**NOT_TRAINED, "nan": "what has no say is infinite, and there are cases of it"},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="Why a model that was trained with its neighbours must be used without them, and what it has to remember for that.",
    cases=_inference_cases,
    hints=(
        "Each value is compared with one number that was fixed in training. Nothing else in the batch is looked at.",
        "Print `smallest.shape` and `pre.shape` for three SAEs. Which axis is averaged away, and how many axes of length 1 does the result need? What is the mean of 0.5 and infinity?",
        "Add up the finite entries, divide by *their* number; then compare `pre` with `threshold[..., None, None]`.",
    ),
    verified="one threshold per SAE, batches that kept nothing, a single row.",
    next="run script 3 with it: the share of rows that change should be exactly 0.",
)


def _used(pre, smallest, *, level="mean", keep="value", compare="value"):
    finite = smallest.isfinite()
    filled = smallest.masked_fill(~finite, 0)
    threshold = {
        "mean": filled.sum(-1) / finite.sum(-1),
        "infinite": smallest.mean(-1),
        "all-batches": filled.sum(-1) / smallest.shape[-1],
        "least": smallest.min(-1).values,
        "largest": filled.max(-1).values,
        "none": 0 * filled.sum(-1),
    }[level][..., None, None]
    on = (pre.abs() if compare == "size" else pre) > threshold
    return {"value": pre * on, "excess": (pre - threshold) * on, "one": on.to(pre.dtype), "clamp": torch.maximum(pre, threshold.expand_as(pre))}[keep]


for _slug, _options, _message in (
    ("threshold-subtracted", {"keep": "excess"}, "You took the threshold off the values that stay. That is a shifted ReLU, and shrinks every latent: values above the threshold stay as they are."),
    ("relu-only", {"level": "none"}, "The threshold is not used: every positive value stays."),
    ("by-size", {"compare": "size"}, "You compared absolute values, so that strongly negative latents stay on."),
    ("ones-for-values", {"keep": "one"}, "You returned which latents are on, not how strongly."),
    ("clamped-to-threshold", {"keep": "clamp"}, "Values below the threshold became the threshold. They should be 0."),
    ("infinity-averaged", {"level": "infinite"}, "One batch that kept nothing made your threshold infinite, and the SAE silent for ever. Such a batch has no say in the average."),
    ("empty-batches-counted", {"level": "all-batches"}, "You divided by the number of all batches. Those that kept nothing were left out of the sum: leave them out of the count too."),
    ("least-of-all", {"level": "least"}, "Your threshold is the smallest value of any batch, not the average over batches: one odd batch would decide."),
    ("largest-of-all", {"level": "largest"}, "Your threshold is the largest of the batches' smallest values, not their average."),
):
    acts_at_inference.mistake(_slug, _message)(partial(_used, **_options))


@acts_at_inference.variant
def _(pre, smallest):
    """nanmean, torch.where."""
    threshold = torch.where(smallest == torch.inf, torch.nan, smallest).nanmean(-1)
    return torch.where(pre > threshold.unsqueeze(-1).unsqueeze(-1), pre, 0)


@acts_at_inference.variant
def _(pre, smallest):
    """A product with the mask; a weight per batch."""
    weight = smallest.isfinite().to(pre.dtype)
    threshold = (weight * smallest.nan_to_num(posinf=0)).sum(-1) / weight.sum(-1)
    return pre * (pre > threshold.reshape(*threshold.shape, 1, 1))


@acts_at_inference.variant
def _(pre, smallest):
    """nn.functional.threshold, SAE by SAE."""
    def one(values, kept):
        return torch.nn.functional.threshold(values, float(kept[kept < torch.inf].mean()), 0.0)

    return one(pre, smallest) if pre.ndim == 2 else torch.stack([one(*pair) for pair in zip(pre, smallest)])


# --- unit_rows ---------------------------------------------------------------------------------------------


def _unit_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("7 latents, 4 dimensions", sae_params(rng, (), 4, 7))
    yield Case("as many latents as dimensions", sae_params(rng, (), 5, 5))
    yield Case("2 SAEs at once, float32", sae_params(rng, (2,), 6, 3, torch.float32))
    ready = sae_params(rng, (), 3, 3)
    yield Case("rows that have length 1 already", {**ready, "W_dec": torch.eye(3, dtype=torch.float64)[[1, 2, 0]]}).of("extreme")
    yield Case("one row very short, one very long", {**ready, "W_dec": ready["W_dec"] * torch.tensor([[1e-7], [1.0], [1e7]], dtype=torch.float64)}).of("extreme")
    yield Case("biases of 0", {**ready, "b_enc": 0 * ready["b_enc"]}).of("extreme")
    yield Case("one latent, one dimension", sae_params(rng, (), 1, 1)).of("extreme")


unit_rows = Exercise(
    "unit_rows",
    new=True,
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=4,
    minutes=8,
    learn="To name the axis of a latent before normalising anything, and where a length goes that is taken away.",
    cases=_unit_cases,
    hints=(
        "If a latent's row becomes half as long, its value must become twice as large for the reconstruction to stay. What makes a ReLU's value twice as large?",
        "Print the shapes of `params['W_dec'].norm(dim=-1)` and of `norm(dim=-2)`: which has an entry per latent? Then, for W_enc, along which axis do the latents run?",
        "With `length` of shape [*sae, d_sae]: one parameter is divided by it, two are multiplied, one is only copied.",
    ),
    verified="long rows and short ones, square matrices, several SAEs; the reconstruction stays what it was.",
    next="`unit_rows(params)['W_dec'].norm(dim=-1)` is one test, an unchanged `sae_forward` the other; keep both while you develop.",
)


def _folded(params, *, axis=-1, length=None, encoder="times", bias="times"):
    W = params["W_dec"]
    size = W.norm(dim=-1) if length is None else length(W)
    scaled = W / (W.norm(dim=-2, keepdim=True) if axis == -2 else size.unsqueeze(-1))
    W_enc, b_enc = params["W_enc"], params["b_enc"]
    W_enc = {"times": W_enc * size.unsqueeze(-2), "left": W_enc.clone(), "over": W_enc / size.unsqueeze(-2)}[encoder]
    b_enc = {"times": b_enc * size, "left": b_enc.clone(), "over": b_enc / size}[bias]
    return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": scaled, "b_dec": params["b_dec"].clone()}


for _slug, _options, _message in (
    ("columns", {"axis": -2}, "Your decoder *columns* have length 1. A latent is a row: print `W_dec.norm(dim=-1)`, it should be all ones."),
    ("whole-matrix", {"length": lambda W: W.flatten(-2).norm(dim=-1)[..., None].expand(W.shape[:-1])}, "You divided by the length of the whole matrix. Each row has a length of its own."),
    ("by-the-square", {"length": lambda W: W.square().sum(-1)}, "You divided by the *squared* length. Long rows became short ones."),
    ("shortened-only", {"length": lambda W: W.norm(dim=-1).clamp(min=1)}, "Rows shorter than 1 stayed as they were. A constraint to length 1 works in both directions."),
    ("sum-of-entries", {"length": lambda W: W.abs().sum(-1)}, "You divided by the sum of absolute entries. That is another norm."),
    ("encoder-left", {"encoder": "left", "bias": "left"}, "The rows have length 1, and the reconstruction is another one: the lengths are gone. They belong into the latents' values."),
    ("bias-left", {"bias": "left"}, "The encoder's columns carry the lengths, its bias does not: every latent switches on at another place than before."),
    ("encoder-divided", {"encoder": "over", "bias": "over"}, "You divided the encoder by the lengths as well. What is taken from a row must be *given* to the value."),
):
    unit_rows.mistake(_slug, _message)(partial(_folded, **_options))


@unit_rows.variant
def _(params):
    """normalize, and a diagonal matrix for the encoder."""
    length = params["W_dec"].norm(dim=-1)
    return {"W_dec": normalize(params["W_dec"], dim=-1), "W_enc": params["W_enc"] @ torch.diag_embed(length),
            "b_enc": torch.einsum("...s,...s->...s", params["b_enc"], length), "b_dec": params["b_dec"] + 0}


@unit_rows.variant
def _(params):
    """Clones, changed in place."""
    new = {name: value.clone() for name, value in params.items()}
    length = torch.einsum("...sd,...sd->...s", params["W_dec"], params["W_dec"]).sqrt()
    new["W_dec"] /= length[..., None]
    new["W_enc"] *= length[..., None, :]
    new["b_enc"] *= length
    return new


@unit_rows.variant
@for_each_sae
def _(params):
    """A loop over latents."""
    rows, columns, biases = [], [], []
    for s, row in enumerate(params["W_dec"]):
        size = torch.linalg.vector_norm(row)
        rows.append(row / size)
        columns.append(params["W_enc"][:, s] * size)
        biases.append(params["b_enc"][s] * size)
    return {"W_dec": torch.stack(rows), "W_enc": torch.stack(columns, dim=1), "b_enc": torch.stack(biases), "b_dec": params["b_dec"].clone()}


# --- aux_error ---------------------------------------------------------------------------------------------

def _aux_error_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int, dtype: torch.dtype) -> Case:
        params = sae_params(rng, lead, d_in, d_sae, dtype)
        x = normal(rng, *lead, n, d_in, dtype=dtype)
        return Case(label, {key: params[key] for key in ("W_dec", "b_dec")}, normal(rng, *lead, n, d_sae, dtype=dtype).relu(), x, x + 0.5 * normal(rng, *lead, n, d_in, dtype=dtype))

    yield case("9 rows, 7 latents, 4 dimensions", (), 4, 7, 9, torch.float64)
    yield case("2 SAEs at once, float32", (2,), 3, 5, 6, torch.float32)
    silent = case("no latent speaks", (), 3, 4, 5, torch.float64)
    silent.args[1][:] = 0
    yield silent.of("extreme")
    one = case("nothing is left over, one row", (), 2, 3, 1, torch.float64)
    yield Case(one.label, *one.args[:3], one.args[2].clone()).of("extreme")


aux_error = Exercise(
    "aux_error",
    trained=("params", "aux_acts"),
    without={**NO_THRESHOLD, "nan": "the bias does not count, but to see that is the exercise: nothing says that it may be no number"},
    difficulty=2,
    importance=3,
    minutes=6,
    learn="To ask of every loss in which space its two sides live.",
    cases=_aux_error_cases,
    hints=(
        "x_hat contains the bias, so x - x_hat does not. In which space must the latents write?",
        "Print the mean over rows of `x - x_hat` and of your decoding: should they be of the same size?",
        "Both sides are differences from the same origin. Write the squared distance of two things, in neither of which the bias occurs.",
    ),
    verified="a decoder bias that is far from zero, sums over dimensions, means over rows, several SAEs.",
    next="the rows of script 5 should not point at minus the bias any more.",
)


def _aux_e(params, aux_acts, x, x_hat, *, bias=0, target="error", dims="sum", rows="mean"):
    guess = aux_acts @ params["W_dec"] + bias * params["b_dec"].unsqueeze(-2)
    aim = {"error": x - x_hat, "x": x, "reversed": x_hat - x, "x_hat": x_hat}[target]
    loss = (aim - guess).square()
    loss = loss.sum(-1) if dims == "sum" else loss.mean(-1)
    return loss.mean(-1) if rows == "mean" else loss.sum(-1)


for _slug, _options, _message in (
    ("bias-in-decoding", {"bias": 1}, "The decoding still contains the bias, and the target does not: the bug of script 5."),
    ("bias-removed-from-decoding", {"bias": -1}, "You subtracted the bias from the decoding. The target contains none: leave it out on both sides."),
    ("both-sides-absolute", {"bias": 1, "target": "x"}, "Both sides contain the bias now, but the target is x itself: the dead latents would compete with the living instead of helping them."),
    ("target-is-x", {"target": "x"}, "The target is x. It should be what the living latents leave over."),
    ("target-reversed", {"target": "reversed"}, "The target is x_hat - x: the sign is reversed."),
    ("averaged-over-dimensions", {"dims": "mean"}, "You averaged over the dimensions; the squared distance is a sum."),
    ("summed-over-rows", {"rows": "sum"}, "You summed over the rows; the loss is their mean."),
):
    aux_error.mistake(_slug, _message)(partial(_aux_e, **_options))


@aux_error.variant
def _(params, aux_acts, x, x_hat):
    """einsum and a norm."""
    left = x - x_hat - torch.einsum("...ns,...sd->...nd", aux_acts, params["W_dec"])
    return torch.einsum("...nd,...nd->...n", left, left).mean(-1)


@aux_error.variant
def _(params, aux_acts, x, x_hat):
    """The bias on both sides."""
    both = params["b_dec"].unsqueeze(-2)
    return ((x - x_hat + both) - (aux_acts @ params["W_dec"] + both)).pow(2).sum((-1, -2)) / x.shape[-2]


@aux_error.variant
def _(params, aux_acts, x, x_hat):
    """A loop over rows."""
    total = 0
    for i in range(x.shape[-2]):
        row = slice(i, i + 1)
        total = total + (aux_acts[..., row, :] @ params["W_dec"] + x_hat[..., row, :] - x[..., row, :]).pow(2).sum((-1, -2))
    return total / x.shape[-2]


# --- explained_variance ------------------------------------------------------------------------------------

def _variance_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, lead: tuple[int, ...], d_in: int, d_sae: int, n: int, dtype: torch.dtype) -> Case:
        x = 20 * normal(rng, *lead, n, d_in) + 30
        scale = 0.05 + 0.05 * uniform(rng, *lead)
        params = sae_params(rng, lead, d_in, d_sae)
        params["W_dec"] = params["W_enc"].transpose(-1, -2) / d_sae + 0.1 * params["W_dec"]
        params["b_dec"] = (x * scale[..., None, None]).mean(-2)
        return Case(label, {key: value.to(dtype) for key, value in params.items()}, x.to(dtype), scale.to(dtype))

    yield case("9 rows, 4 dimensions", (), 4, 7, 9, torch.float64)
    yield case("2 SAEs with scales of their own", (2,), 3, 8, 11, torch.float64)
    eye, zero = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    both = {"W_enc": torch.cat([eye, -eye], 1), "b_enc": torch.cat([zero, zero]), "W_dec": torch.cat([eye, -eye]), "b_dec": zero}
    yield Case("nothing is missed", both, normal(rng, 5, 2), torch.tensor(0.25, dtype=torch.float64)).of("extreme")
    yield Case("worse than the mean, two rows", {**both, "W_dec": -3 * both["W_dec"]}, normal(rng, 2, 2), torch.tensor(1.0, dtype=torch.float64)).of("extreme")
    far = case("activations very far from 0", (), 3, 6, 9, torch.float64)
    params, x, scale = far.args
    yield Case(far.label, {**params, "b_dec": params["b_dec"] + 1e8 * scale}, x + 1e8, scale).of("extreme")


explained_variance = Exercise(
    "explained_variance",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=2,
    importance=5,
    minutes=8,
    learn="That an SAE has units, and that evaluation must pass through the same door as training.",
    cases=_variance_cases,
    hints=(
        "The SAE speaks another language than x: scaled. Translate the question into it, and the answer back.",
        "Print `scale.shape` and `x.shape`. Then print the mean length of x, of what goes into the SAE, and of what you compare with x.",
        "With `factor = scale[..., None, None]`: in which direction is x scaled before `sae_forward`, and what undoes it? Then one sum over rows and dimensions above the line, one below.",
    ),
    verified="activations far from the origin and thirty times too large, a scale per SAE.",
    next="is 1 - error / variance the same number if both are measured in scaled units? Why?",
)


def _ev(params, x, scale, *, into=True, back=True, centre="mean", inverse=False):
    factor = scale[..., None, None]
    if inverse:
        factor = 1 / factor
    acts = pre_acts(params, x * factor if into else x).relu()
    x_hat = decoded(params, acts)
    x_hat = x_hat / factor if back else x_hat
    middle = {"mean": x.mean(-2, keepdim=True), "zero": 0 * x, "all": x.mean((-1, -2), keepdim=True)}[centre]
    return 1 - (x - x_hat).square().sum((-1, -2)) / (x - middle).square().sum((-1, -2))


for _slug, _options, _message in (
    ("scale-ignored", {"into": False, "back": False}, "The SAE saw raw activations. It was trained on scaled ones: the bug of script 6."),
    ("not-scaled-back", {"back": False}, "The reconstruction is still in scaled units when you compare it with raw x."),
    ("only-scaled-back", {"into": False}, "You scaled the reconstruction back and not the input forth."),
    ("scale-inverted", {"inverse": True}, "You divided where you should multiply: the training data were x * scale."),
    ("variance-about-zero", {"centre": "zero"}, "Your variance is measured from the origin. A constant far from it would count as explained; measure from the mean activation."),
    ("one-mean-for-all-dimensions", {"centre": "all"}, "Your mean is one number for all dimensions. The mean activation is a vector."),
):
    explained_variance.mistake(_slug, _message)(partial(_ev, **_options))


@explained_variance.mistake("averaged-over-rows", "You computed the share row by row and averaged. Rows near the mean have almost no variance to explain, and blow up.")
def _(params, x, scale):
    factor = scale[..., None, None]
    x_hat = decoded(params, pre_acts(params, x * factor).relu()) / factor
    return (1 - (x - x_hat).square().sum(-1) / (x - x.mean(-2, keepdim=True)).square().sum(-1)).mean(-1)


@explained_variance.mistake("averaged-over-dimensions", "You computed the share dimension by dimension and averaged. Sum error and variance first, then divide once.")
def _(params, x, scale):
    factor = scale[..., None, None]
    x_hat = decoded(params, pre_acts(params, x * factor).relu()) / factor
    return (1 - (x - x_hat).square().sum(-2) / (x - x.mean(-2, keepdim=True)).square().sum(-2)).mean(-1)


@explained_variance.variant
def _(params, x, scale):
    """Everything in scaled units."""
    z = x * scale[..., None, None]
    error = (z - decoded(params, pre_acts(params, z).relu())).square().sum((-1, -2))
    return 1 - error / (z - z.mean(-2, keepdim=True)).square().sum((-1, -2))


@explained_variance.variant
def _(params, x, scale):
    """var with correction 0."""
    factor = scale.unsqueeze(-1).unsqueeze(-1)
    x_hat = decoded(params, pre_acts(params, x * factor).clamp(min=0)) / factor
    return 1 - ((x - x_hat) ** 2).mean(-2).sum(-1) / x.var(dim=-2, correction=0).sum(-1)


@explained_variance.variant
def _(params, x, scale):
    """SAE by SAE, with norms."""
    def one(p, rows, factor):
        z = rows * factor
        x_hat = (torch.relu((z - p["b_dec"]) @ p["W_enc"] + p["b_enc"]) @ p["W_dec"] + p["b_dec"]) / factor
        return 1 - torch.linalg.norm(rows - x_hat) ** 2 / torch.linalg.norm(rows - rows.mean(0)) ** 2

    if x.ndim == 2:
        return one(params, x, scale)
    return torch.stack([one({k: v[i] for k, v in params.items()}, x[i], scale[i]) for i in range(len(x))])


# --- shared_gradient ---------------------------------------------------------------------------------------

def _shared_cases(rng: torch.Generator) -> Iterator[Case]:
    yield Case("3 workers with 5, 20 and 2 rows", normalize(normal(rng, 7, 4), dim=-1), normal(rng, 3, 7, 4), torch.tensor([5, 20, 2]))
    yield Case("2 SAEs on 4 workers", normalize(normal(rng, 2, 3, 5), dim=-1), normal(rng, 4, 2, 3, 5), torch.tensor([8, 1, 3, 10]))
    yield Case("one worker", normalize(normal(rng, 3, 2), dim=-1), normal(rng, 1, 3, 2), torch.tensor([7])).of("extreme")
    float32 = {"dtype": torch.float32}
    yield Case("billions of rows, float32", normalize(normal(rng, 2, 3, **float32), dim=-1), normal(rng, 2, 2, 3, **float32), torch.tensor([3_000_000_000, 1_000_000_000])).of("extreme")
    yield Case("one latent, one dimension", torch.tensor([[-1.0]]), torch.tensor([[[4.0]], [[2.0]]]), torch.tensor([1, 1])).of("extreme")
    yield Case("a worker that had no rows", normalize(normal(rng, 4, 3), dim=-1), normal(rng, 3, 4, 3), torch.tensor([4, 0, 7])).of("extreme")


shared_gradient = Exercise(
    "shared_gradient",
    without={**NOT_TRAINED, **NO_THRESHOLD, **ALL_COUNTS},
    difficulty=3,
    importance=3,
    minutes=10,
    learn="In which order averaging over machines and projecting onto a constraint belong, and what each machine's mean weighs.",
    cases=_shared_cases,
    hints=(
        "Each worker's gradient is a mean over its own rows. What weight has it in the mean over all rows? Then project, once.",
        "Print `grads.shape` and `n_rows.shape`: which axis is the workers'? And is the weight a share, adding up to 1?",
        "`torch.einsum('w,w...->...', weight, grads)` averages over workers. What is `weight`, so that it adds up to 1? Then `tangent_gradient` of chapter 22, on the average.",
    ),
    verified="workers with very different numbers of rows, one SAE and several.",
    next="the projection is linear: would projecting first and averaging after give another result? And on machines whose W_dec has drifted?",
)


def _share(W_dec, grads, n_rows, *, weight="rows", project=True, axis=-1, only=None):
    if weight == "rows":
        w = n_rows.to(grads.dtype) / n_rows.sum()
    elif weight == "equal":
        w = torch.full((len(grads),), 1 / len(grads), dtype=grads.dtype)
    elif weight == "inverse":
        w = 1 / n_rows.to(grads.dtype)
        w = w / w.sum()
    elif weight == "counts":
        w = n_rows.to(grads.dtype)
    elif weight == "sum":
        w = torch.ones(len(grads), dtype=grads.dtype)
    mean = torch.einsum("w,w...->...", w, grads) if only is None else grads[only]
    return mean - (mean * W_dec).sum(axis, keepdim=True) * W_dec if project else mean


for _slug, _options, _message in (
    ("own-gradient", {"only": 0}, "You used one worker's gradient. Every worker would follow its own: the bug of script 7."),
    ("workers-equal", {"weight": "equal"}, "Every worker counts the same. A worker with few rows would pull each of them harder: weight by rows."),
    ("workers-summed", {"weight": "sum"}, "You summed the workers' gradients. Each is already a mean; the step would grow with the number of machines."),
    ("rows-not-shares", {"weight": "counts"}, "You weighted by the number of rows and did not divide by their total: the gradient of a sum, not of a mean."),
    ("weights-inverted", {"weight": "inverse"}, "Workers with fewer rows weigh more in yours. It is the other way round."),
    ("projection-lost", {"project": False}, "The average is right, and its component along the rows is still there."),
    ("wrong-axis", {"axis": -2}, "You projected along the wrong axis: a decoder row runs along the last one."),
    ("last-worker-only", {"only": -1}, "You used the last worker's gradient: perhaps a loop that overwrites instead of adding."),
):
    shared_gradient.mistake(_slug, _message)(partial(_share, **_options))


@shared_gradient.variant
def _(W_dec, grads, n_rows):
    """A loop over workers."""
    total = torch.zeros_like(W_dec)
    for grad, n in zip(grads, n_rows.tolist()):
        total = total + n * grad
    total = total / int(n_rows.sum())
    return total - torch.einsum("...sd,...sd->...s", total, W_dec).unsqueeze(-1) * W_dec


@shared_gradient.variant
def _(W_dec, grads, n_rows):
    """Projected first: the projection is linear, so that the order is free where W_dec is shared."""
    across = grads - (grads * W_dec).sum(-1, keepdim=True) * W_dec
    weight = n_rows.to(grads.dtype).view(-1, *[1] * (grads.ndim - 1))
    return (weight * across).sum(0) / n_rows.sum()


@shared_gradient.variant
def _(W_dec, grads, n_rows):
    """tensordot, and a projection matrix per row."""
    mean = torch.tensordot(n_rows.to(grads.dtype), grads, dims=1) / n_rows.sum()
    across = torch.eye(W_dec.shape[-1], dtype=W_dec.dtype) - W_dec[..., :, None] * W_dec[..., None, :]
    return (across @ mean[..., None]).squeeze(-1)


# --- decode_backward ---------------------------------------------------------------------------------------

def _backward_cases(rng: torch.Generator) -> Iterator[Case]:
    def case(label: str, n: int, k: int, d_sae: int, d_in: int, dtype: torch.dtype, used: int) -> Case:
        places = torch.stack([torch.randperm(used, generator=rng)[:k] for _ in range(n)])
        return Case(label, normal(rng, n, k, dtype=dtype).abs() + 0.1, places, normal(rng, d_sae, d_in, dtype=dtype), normal(rng, n, d_in, dtype=dtype))

    yield case("7 rows, k = 3, 9 latents, 4 dimensions", 7, 3, 9, 4, torch.float64, 9)
    yield case("latents active in many rows, others in none", 8, 2, 6, 5, torch.float64, 3)
    yield case("k = 1, float32", 5, 1, 4, 3, torch.float32, 4)
    yield case("k = d_sae", 4, 3, 3, 2, torch.float64, 3).of("extreme")
    yield case("one row", 1, 2, 5, 3, torch.float64, 5).of("extreme")
    same = case("one latent in all rows, its value 0 or negative", 4, 1, 3, 2, torch.float64, 1)
    same.args[0][[0, 1, 3], 0] = torch.tensor([0.0, 0.0, -2.0], dtype=torch.float64)
    yield same.of("extreme")


decode_backward = Exercise(
    "decode_backward",
    without={**_BY_HAND, **NO_THRESHOLD, "nan": "rows of W_dec that no latent uses do not count, but nothing says that they may be no numbers"},
    difficulty=4,
    importance=3,
    minutes=15,
    learn="What a fast kernel owes: the gradient of every input, including those that repeat.",
    cases=_backward_cases,
    hints=(
        "Write x_hat for one row as a sum of k terms. What does each value do to x_hat, and what does each row of W_dec?",
        "Print the shapes of `W_dec[places]` and of `values.unsqueeze(-1) * grad.unsqueeze(1)`. The second has one vector per active latent per row: where must they be added up?",
        "A value's gradient is a dot product of `grad` with the row it multiplies: `torch.einsum('nkd,nd->nk', ..., grad)`. The rows' gradients start as zeros, and `index_add` puts each `written` vector on top of what is there: which two tensors have to be flattened, and over which axes?",
    ),
    verified="latents that are active in many rows, in none, k = 1 and more, against autograd's own answer.",
    next="compare with `torch.autograd.grad` through the dense decoder, on random input: that comparison is the test that the published kernels lacked.",
)


def _backward(values, places, W_dec, grad, *, to_values="right", add=True, weighted=True, scale=1.0):
    grad_values = torch.einsum("nkd,nd->nk", W_dec[places], grad)
    if to_values == "zero":
        grad_values = torch.zeros_like(values)
    elif to_values == "times":
        grad_values = grad_values * values
    written = (values if weighted else torch.ones_like(values)).unsqueeze(-1) * grad.unsqueeze(1)
    flat, rows = places.flatten(), written.flatten(0, 1)
    if add:
        out = torch.zeros_like(W_dec).index_add(0, flat, rows)
    else:
        out = torch.zeros_like(W_dec)
        for place, row in zip(flat.tolist(), rows):
            out[place] = row
    return grad_values, out * scale


for _slug, _options, _message in (
    ("values-without-gradient", {"to_values": "zero"}, "The values get no gradient, so the encoder behind them learns nothing: the bug of script 8."),
    ("last-row-wins", {"add": False}, "A latent that is active in several rows keeps the gradient of the last one only. `W[places] = ...` overwrites; gradients add up: `index_add`."),
    ("unweighted", {"weighted": False}, "grad_W_dec ignores how strong a latent was. A row of W_dec enters x_hat multiplied by the value."),
    ("values-multiplied-in", {"to_values": "times"}, "grad_values is multiplied by the values. The derivative of value times row, by the value, is the row."),
    ("mean-over-active", {"scale": 0.5}, "grad_W_dec is half of what it should be: nothing is averaged here."),
    ("sign-reversed", {"scale": -1.0}, "grad_W_dec has the wrong sign: x_hat grows with W_dec, and the gradient is passed on as it is."),
):
    decode_backward.mistake(_slug, _message)(partial(_backward, **_options))


@decode_backward.mistake("first-latent-only", "Only the first of the k latents of each row gets a gradient.")
def _(values, places, W_dec, grad):
    grad_values, grad_W = _backward(values[:, :1], places[:, :1], W_dec, grad)
    return torch.cat([grad_values, torch.zeros_like(values[:, 1:])], dim=1) if values.shape[1] > 1 else grad_values * 2, grad_W


@decode_backward.variant
def _(values, places, W_dec, grad):
    """The dense decoder."""
    acts = torch.zeros(len(values), len(W_dec), dtype=values.dtype).scatter(1, places, values)
    return (grad @ W_dec.T).gather(1, places), acts.T @ grad


@decode_backward.variant
def _(values, places, W_dec, grad):
    """autograd."""
    v, W = values.clone().requires_grad_(), W_dec.clone().requires_grad_()
    x_hat = torch.einsum("nk,nkd->nd", v, W[places])
    return torch.autograd.grad(x_hat, (v, W), grad)


@decode_backward.variant
def _(values, places, W_dec, grad):
    """Two loops."""
    grad_values, grad_W = torch.zeros_like(values), torch.zeros_like(W_dec)
    for i in range(len(values)):
        for j, place in enumerate(places[i].tolist()):
            grad_values[i, j] = W_dec[place] @ grad[i]
            grad_W[place] += values[i, j] * grad[i]
    return grad_values, grad_W
