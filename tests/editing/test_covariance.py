import torch

from sleepgym.editing.covariance import second_moments
from sleepgym.lm.language_model import hooked


def naive(lm, texts, layer):
    """Mean outer product of the down-projection's inputs, row by row and without padding."""
    keys = []
    catch = lm.linear(lm.blocks[layer].down_proj).register_forward_pre_hook(lambda m, args: keys.append(args[0][0]))
    with hooked(catch), torch.no_grad():
        for row in texts:
            lm.model(input_ids=torch.tensor([row]))
    K = torch.cat(keys).double()
    assert len(K) == sum(map(len, texts))
    return (K.T @ K / len(K)).float()


def test_second_moments_equal_a_naive_computation_and_ignore_padding(base):
    texts = [row[: 3 + 2 * i] for i, row in enumerate(base.statistics.held_out[:7])]
    found = second_moments(base.lm, texts, [0, 1], batch_rows=3)
    assert sorted(found) == [0, 1]
    for layer, moment in found.items():
        torch.testing.assert_close(moment, naive(base.lm, texts, layer), atol=1e-5, rtol=1e-4)


def test_progress_counts_rows(base):
    seen = []
    second_moments(base.lm, base.statistics.held_out[:5], [0], batch_rows=2, progress=seen.append)
    assert seen == [2, 4, 5]
