"""Compiled layers and CUDA graphs give the scores of plain passes. For a GPU, but for the refusal."""

import pytest
import torch

from stages.errors import UserError
from stages.model.fast_scores import FastScores, speed_up
from stages.model.layout import underlying
from stages.model.load import load_base
from stages.model.lora import attach_adapter, merge_unquantized
from stages.model.scoring import label_scores
from stages.params import Method
from tests.unit.model.helpers import CPU


def test_without_a_gpu_it_is_refused(base_folder, prompt):
    with pytest.raises(UserError, match="needs a GPU"):
        speed_up(load_base(Method(dtype="float32"), base_folder, CPU), prompt)


@pytest.mark.parametrize(("failures", "calls"), [(0, ["pass"]), (1, ["pass", "forget", "pass"]), (2, None)])
def test_a_batch_that_does_not_fit_beside_other_graphs_is_tried_without_them(failures, calls):
    done = []

    class Captured:
        def __call__(self, packed):
            done.append("pass")
            if done.count("pass") <= failures:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.arange(8.0).unsqueeze(1)

        def forget(self):
            done.append("forget")

    scores = FastScores.__new__(FastScores)
    scores.captured, scores.shared = Captured(), 1
    batch = {"input_ids": torch.ones(3, 4, dtype=torch.long), "positions": torch.tensor([[3], [2], [3]])}
    if calls is None:
        with pytest.raises(torch.OutOfMemoryError, match="batch of 3 text"):
            scores(batch)
    else:
        assert scores(batch).flatten().tolist() == [0, 1, 2]
        assert done == calls


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("residency", ["quantized", "dequantized"])
def test_scores_are_those_of_plain_passes(base_folder, prompt, sample_texts, train_params, residency):
    method = Method(dtype="bfloat16", load_in_4bit=True, residency=residency)
    model = attach_adapter(load_base(method, base_folder, torch.device("cuda", 0)), train_params).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    merge_unquantized(model)
    texts = list(sample_texts) * 3
    plain = label_scores(model, prompt, texts, 1024, "").log_odds
    speed_up(model, prompt)
    fast = [label_scores(model, prompt, texts, 1024, "").log_odds for _ in range(3)]
    assert underlying(model).fast_scores.captured.graphs
    spread = plain.std()
    for found in fast:
        assert abs(found - plain).max() < 0.1 * spread
    assert (fast[1] == fast[2]).all()  # replays repeat themselves
