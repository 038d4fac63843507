import math

import numpy as np
import torch
from papercommons.metrics.pair_scores import PairScores
from papercommons.metrics.roc import binary_auc
from papercommons.metrics.verification import equal_error_rate


def test_batches_say_what_the_whole_says():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, generator=generator, dtype=torch.float64).float()
    same = (torch.rand(60, generator=generator) < 0.4).long()
    metric = PairScores()
    for part in (slice(0, 7), slice(7, 40), slice(40, 60)):
        metric.update(scores[part].half().float(), same[part])
    whole = scores.half().double().numpy()
    found = metric.compute()
    assert found["auc"] == binary_auc(whole, same.numpy())
    assert found["eer"] == equal_error_rate(whole, same.numpy())[0]
    metric.reset()
    metric.update(torch.tensor([0.0, 1.0]), torch.tensor([0, 1]))
    assert metric.compute() == {"auc": 1.0, "eer": 0.0}


def test_lost_scores_are_said_to_be_lost():
    metric = PairScores()
    metric.update(torch.tensor([0.3, np.nan]), torch.tensor([0, 1]))
    assert all(math.isnan(value) for value in metric.compute().values())
