"""The loss of the towers: softmax over a sample of items, corrected for how often each is sampled.

P pairs (a state and what followed it), S shared negatives, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
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
    positive_P = (wants_PD * positives_PD).sum(dim=1) - positive_log_q_P
    negative_PS = wants_PD @ negatives_SD.T - negative_log_q_S
    is_hit_PS = positive_ids_P[:, None] == negative_ids_S[None, :]
    negative_PS = negative_PS.masked_fill(is_hit_PS, float("-inf"))
    return torch.logsumexp(torch.cat([positive_P[:, None], negative_PS], dim=1), dim=1) - positive_P


def in_batch_softmax(queries_QD: Tensor, items_QD: Tensor, item_ids_Q: Tensor) -> Tensor:
    """Mean cross-entropy of each query's item among the batch's items; other copies of it are left out."""
    scores_QQ = queries_QD @ items_QD.T
    same_QQ = item_ids_Q[:, None] == item_ids_Q[None, :]
    same_QQ.fill_diagonal_(False)
    target_Q = torch.arange(len(item_ids_Q))
    return functional.cross_entropy(scores_QQ.masked_fill(same_QQ, float("-inf")), target_Q)
