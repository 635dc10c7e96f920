"""The deployment game: commit to a threshold, then a hidden stream of messages bills every miss and every false alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Bill:
    """What a threshold cost on one stream.

    Attributes:
        misses: harmful messages that raised no alarm. false_alarms: harmless ones that did.
        harmful, harmless: how many of each were in the stream.
        cost: what was paid. in_hindsight: the same for the threshold that would have been best, and best its value.
        never, always: what it costs to flag nothing, and to flag everything.
        by_kind: for each kind of message, (alarms, messages).
    """

    misses: int
    false_alarms: int
    harmful: int
    harmless: int
    cost: float
    in_hindsight: float
    best: float
    never: float
    always: float
    by_kind: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        kinds = "\n".join(f"  {kind:<28} {alarms:>4} alarms on {n:>5} messages" for kind, (alarms, n) in self.by_kind.items())
        return (f"{self.misses} of {self.harmful} harmful messages missed, {self.false_alarms} false alarms on {self.harmless:,} others: "
                f"{self.cost:,.0f} paid.\nFlagging nothing costs {self.never:,.0f}, everything {self.always:,.0f}; the best threshold "
                f"for this stream, {self.best:.2f}, {self.in_hindsight:,.0f}.\n{kinds}")


def hidden_stream(pools: Mapping[str, tuple[Float[Tensor, " n"], bool]], *, n: int = 5000, base_rate: float = 0.01, seed: int = 0
                  ) -> tuple[Float[Tensor, " n"], Tensor, list[str]]:
    """Draw a stream of messages: (scores, harmful, kind of each).

    Args:
        pools: for each kind of message the monitor's scores, and whether the kind is harmful.
        base_rate: the share of harmful messages, on average.
        seed: of the draws, and of how common each kind is: the traffic that comes is not the one that was planned for.

    Raises: ValueError when harmful or harmless kinds are missing, or a pool is empty.
    """
    sides = {side: [kind for kind, (_, harmful) in pools.items() if harmful == side] for side in (True, False)}
    if not all(sides.values()) or any(not len(scores) for scores, _ in pools.values()):
        raise ValueError("a stream needs harmful and harmless kinds of messages, and at least one message of each kind.")
    rng = torch.Generator().manual_seed(seed)
    harmful = torch.rand(n, generator=rng) < base_rate
    scores, kinds = torch.zeros(n), [""] * n
    for side, names in sides.items():
        rows = (harmful == side).nonzero()[:, 0]
        common = -torch.rand(len(names), generator=rng).log()  # shares of the kinds, uniform over all that add up to 1
        drawn = torch.multinomial(common, max(len(rows), 1), replacement=True, generator=rng)
        for row, which in zip(rows.tolist(), drawn.tolist()):
            pool = pools[names[which]][0]
            scores[row] = pool[int(torch.randint(len(pool), (1,), generator=rng))]
            kinds[row] = names[which]
    return scores, harmful, kinds


def bill(threshold: float, pools: Mapping[str, tuple[Float[Tensor, " n"], bool]], *, miss: float = 100.0, false_alarm: float = 1.0,
         n: int = 5000, base_rate: float = 0.01, seed: int = 0) -> Bill:
    """Let a `hidden_stream` pass a monitor with this threshold, and add up what it costs.

    Args:
        miss, false_alarm: the price of one.

    Raises: ValueError as `hidden_stream`.
    """
    scores, harmful, kinds = hidden_stream(pools, n=n, base_rate=base_rate, seed=seed)
    alarms = scores > threshold

    def cost(flagged: Tensor) -> float:
        return miss * int((harmful & ~flagged).sum()) + false_alarm * int((~harmful & flagged).sum())

    candidates = torch.cat([scores.unique(), torch.tensor([-torch.inf])])
    bills = [cost(scores > candidate) for candidate in candidates]
    cheapest = min(range(len(bills)), key=bills.__getitem__)
    by_kind: dict[str, tuple[int, int]] = {}
    for kind in pools:
        of_kind = torch.tensor([each == kind for each in kinds])
        by_kind[kind] = int((alarms & of_kind).sum()), int(of_kind.sum())
    return Bill(int((harmful & ~alarms).sum()), int((~harmful & alarms).sum()), int(harmful.sum()), int((~harmful).sum()), cost(alarms),
                bills[cheapest], float(candidates[cheapest]), cost(torch.zeros_like(alarms)), cost(torch.ones_like(alarms)), by_kind)
