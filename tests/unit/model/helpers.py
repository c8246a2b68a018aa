"""Rows of a prompt, and the quantized layers of a model."""

import bitsandbytes as bnb
import torch

CPU = torch.device("cpu")


def rows_of(prompt, texts, label=None):
    labels = {} if label is None else {"labels": [prompt.label_ids[label]]}
    return [{"input_ids": prompt.encode(ids), **labels} for ids in prompt.tokenize(texts)]


def quantized_layers(model):
    return [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
