"""Mean hidden states: those of transformers' own forward, in each layout, whatever the batch."""

import numpy as np
import pytest
import torch

from stages.errors import UserError
from stages.model import hidden as hidden_module
from stages.model.exactness import use_layout
from stages.model.hidden import layers_to_keep, outer_layers, text_states
from stages.model.layout import Layout, underlying
from stages.model.load import decoder_layers, load_base
from stages.model.lora import attach_adapter
from stages.model.scoring import label_scores
from stages.text.prompt import build_prompt
from tests.conftest import METHODS
from tests.unit.model.families import FAST, tiny
from tests.unit.model.helpers import CPU

LAYERS = [1, 2]


def by_transformers(model, prompt, texts):
    """Mean states (N, 2, H) from one pass for each text, over the last repetition of the text, cut as in the prompt."""
    underlying(model).set_attn_implementation("eager")
    found = []
    for ids in prompt.tokenize(texts):
        row, size = prompt.encode(ids), len(prompt.truncate(ids))
        outputs: list = []
        hooks = [
            layer.register_forward_hook(lambda *call, outputs=outputs: outputs.append(call[-1]))
            for layer in outer_layers(model)
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([row]))
        for hook in hooks:
            hook.remove()
        end = len(row) - len(prompt.suffix) - len(prompt.answer_prefix)
        layers = [output[0] if isinstance(output, tuple) else output for output in outputs]
        found.append(torch.stack([layer[0, end - size : end].mean(0) for layer in layers]).numpy())
    return np.stack(found)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("repetitions", [1, 2])
def test_states_are_transformers_own_in_each_layout(base_folder, tokenizer, sample_texts, layout, repetitions):
    prompt = build_prompt(tokenizer, "判断下面的文本是否涉及诈骗。", 500, repetitions, "middle")
    texts = [*sample_texts[:8], "短", sample_texts[3] * 20]
    model = load_base(METHODS["lora"], base_folder, CPU)
    use_layout(model, layout)
    found = text_states(model, prompt, texts, LAYERS, 700, "")
    assert found.truncated.tolist() == [False] * 9 + [True]  # so that a text is cut
    assert found.states == pytest.approx(by_transformers(model, prompt, texts), abs=1e-4)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_score_is_that_of_a_pass_without_states(base_folder, prompt, sample_texts, layout, method):
    model = load_base(METHODS[method], base_folder, CPU)
    use_layout(model, layout)
    found = text_states(model, prompt, [*sample_texts[:9], ""], LAYERS, 700, "")
    expected = label_scores(model, prompt, [*sample_texts[:9], ""], 700, "")
    assert (found.log_odds == expected.log_odds).all()
    assert len(set(found.log_odds)) == 10


@pytest.mark.parametrize("family", FAST)
def test_states_are_transformers_own_in_other_architectures(family, tokenizer, prompt, sample_texts, tmp_path):
    """Packed where they can be, and otherwise padded, or in a pass for each length."""
    model = load_base(METHODS["lora"], tiny(family, tokenizer, tmp_path / "base"), CPU)
    texts = [*sample_texts[:5], "短"]
    found = text_states(model, prompt, texts, LAYERS, 4096, "").states
    expected = by_transformers(model, prompt, texts)
    assert found == pytest.approx(expected, abs=1e-3 * float(np.abs(expected).max()))


def test_states_depend_on_no_other_text(base_folder, prompt, sample_texts):
    model = load_base(METHODS["qlora"], base_folder, CPU)
    texts = [*sample_texts[:9], ""]
    together = text_states(model, prompt, texts, LAYERS, 10_000, "").states
    alone = text_states(model, prompt, texts, LAYERS, 1, "").states
    assert together == pytest.approx(alone, abs=1e-4)
    one = text_states(model, prompt, texts, [2], 10_000, "").states
    assert (one[:, 0] == together[:, 1]).all()  # predict asks for one layer, the probe stage for all


def test_the_first_layer_is_number_one(base_folder, prompt, sample_texts):
    """As transformers counts: hidden_states[0] are the embeddings."""
    model = load_base(METHODS["lora"], base_folder, CPU)
    found = text_states(model, prompt, sample_texts[:1], [1], 4096, "").states
    (ids,) = prompt.tokenize(sample_texts[:1])
    first = len(prompt.prefix)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        states = model(input_ids=torch.tensor([prompt.encode(ids)]), output_hidden_states=True).hidden_states[1][0]
    assert found[0, 0] == pytest.approx(states[first : first + len(ids)].mean(0).numpy(), abs=1e-4)


def test_the_base_model_is_left_as_it_was(base_folder, prompt, sample_texts, train_params):
    model = attach_adapter(load_base(METHODS["lora"], base_folder, CPU), train_params)
    text_states(model, prompt, sample_texts[:2], LAYERS, 4096, "")
    assert not any(layer._forward_hooks for layer in decoder_layers(underlying(model)))
    assert "forward" not in vars(underlying(model).get_output_embeddings())


def test_a_batch_that_does_not_fit_is_computed_in_halves(base_folder, prompt, sample_texts, monkeypatch):
    model = load_base(METHODS["lora"], base_folder, CPU)
    whole = text_states(model, prompt, sample_texts[:7], LAYERS, 10_000, "").states
    answer = hidden_module.completion_logits

    def limited(model, batch, shared):
        if len(batch["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(model, batch, shared)

    monkeypatch.setattr(hidden_module, "completion_logits", limited)
    halved = text_states(model, prompt, sample_texts[:7], LAYERS, 10_000, "").states
    assert halved == pytest.approx(whole, abs=1e-4)
    full = lambda *a: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))  # noqa: E731
    monkeypatch.setattr(hidden_module, "completion_logits", full)
    with pytest.raises(UserError, match=r"a text of \d+ tokens does not fit"):
        text_states(model, prompt, sample_texts[:2], LAYERS, 10_000, "")


def test_of_a_deep_model_nine_layers_are_kept(base_folder, monkeypatch):
    model = load_base(METHODS["lora"], base_folder, CPU)
    assert layers_to_keep(model) == [1, 2]
    monkeypatch.setattr(hidden_module, "outer_layers", lambda base: [None] * 28)
    kept = layers_to_keep(model)
    assert len(kept) == len(set(kept)) == 9
    assert kept[-1] == 28
    assert set(np.diff(kept)) == {3, 4}
