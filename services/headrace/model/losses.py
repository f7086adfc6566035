"""The loss of the towers: softmax over a sample of items, corrected for how often each is sampled.

P pairs (a state and what followed it), S shared negatives, D width.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def sampled_softmax(
    wants_PD: Tensor,
    positives_PD: Tensor,
    negatives_SD: Tensor,
    *,
    positive_ids_P: Tensor,
    negative_ids_S: Tensor,
    positive_log_q_P: Tensor,
    negative_log_q_S: Tensor,
) -> Tensor:
    """Cross-entropy of each pair's item against itself and all negatives: a vector of P losses.

    Every score is lowered by the log of the item's expected count in the sample (logQ correction,
    Bengio and Senécal 2008; Yi et al. 2019), so that popular negatives are not punished for being
    sampled often. A negative that is the pair's own item is left out (an accidental hit).
    """
    hits = _matches(positive_ids_P, negative_ids_S)
    log_q = positive_log_q_P, negative_log_q_S
    losses_P = _SampledSoftmax.apply(wants_PD, positives_PD, negatives_SD, log_q, hits)  # type: ignore[no-untyped-call]
    return cast(Tensor, losses_P)


class _SampledSoftmax(torch.autograd.Function):
    """P × S scores are by far the most that a step holds: they are written once, and only read by the gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        wants_PD: Tensor,
        positives_PD: Tensor,
        negatives_SD: Tensor,
        log_q: tuple[Tensor, Tensor],
        hits: tuple[Tensor, Tensor],
    ) -> Tensor:
        positive_P = (wants_PD * positives_PD).sum(dim=1) - log_q[0]
        scores_PS = (wants_PD @ negatives_SD.T).sub_(log_q[1])
        scores_PS[hits] = float("-inf")
        top_P = torch.maximum(scores_PS.amax(dim=1), positive_P)
        scores_PS.sub_(top_P[:, None]).exp_()
        total_P = scores_PS.sum(dim=1) + (positive_P - top_P).exp()
        losses_P = top_P + total_P.log() - positive_P
        missed_P = losses_P.neg().exp_().sub_(1)  # the positive's share less 1
        ctx.save_for_backward(wants_PD, positives_PD, negatives_SD, scores_PS, total_P, missed_P)
        return losses_P

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_P: Tensor) -> tuple[Tensor | None, ...]:
        wants_PD, positives_PD, negatives_SD, exponentials_PS, total_P, missed_P = ctx.saved_tensors
        scale_P1, missed_P1 = (gradient_P / total_P)[:, None], (missed_P * gradient_P)[:, None]
        wants_gradient_PD = (exponentials_PS @ negatives_SD).mul_(scale_P1).addcmul_(missed_P1, positives_PD)
        negatives_gradient_SD = exponentials_PS.T @ (wants_PD * scale_P1)
        return wants_gradient_PD, missed_P1 * wants_PD, negatives_gradient_SD, None, None


def _matches(positive_ids_P: Tensor, negative_ids_S: Tensor) -> tuple[Tensor, Tensor]:
    """Where a negative is a pair's own item: pairs, negatives."""
    ordered_S, order_S = negative_ids_S.sort()
    first_P = torch.searchsorted(ordered_S, positive_ids_P)
    counts_P = torch.searchsorted(ordered_S, positive_ids_P, right=True) - first_P
    pairs = torch.arange(len(positive_ids_P)).repeat_interleave(counts_P)
    within = torch.arange(len(pairs)) - (counts_P.cumsum(0) - counts_P)[pairs]
    return pairs, order_S[first_P[pairs] + within]


def in_batch_softmax(queries_QD: Tensor, items_QD: Tensor, item_ids_Q: Tensor) -> Tensor:
    """Mean cross-entropy of each query's item among the batch's items; other copies of it are left out."""
    scores_QQ = queries_QD @ items_QD.T
    same_QQ = item_ids_Q[:, None] == item_ids_Q[None, :]
    same_QQ.fill_diagonal_(False)
    target_Q = torch.arange(len(item_ids_Q))
    return functional.cross_entropy(scores_QQ.masked_fill(same_QQ, float("-inf")), target_Q)
