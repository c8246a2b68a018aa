"""The recipes that benchmarks.training_speed compares, by name.

A recipe is a function of one Setting. It builds its model and returns its loss on a fixed batch and the work to time.
Its module is imported only when it runs: Unsloth has to be imported before transformers, and peers may be missing.
"""

import importlib
from collections.abc import Callable

# Recipe -> module of this package that holds a function of the same name.
RECIPES = {
    "article": "stock",
    "stock": "stock",
    "liger": "stock",
    "lora_tuned": "stock",
    "trl": "trl",
    "trl_tuned": "trl",
    "unsloth": "unsloth",
    "unsloth_checkpointed": "unsloth",
    "plain": "ours",
    "speed": "ours",
    "speed_nf4": "ours",
    "speed_lora": "ours",
    "memory": "ours",
    "generate": "inference",
    "score_plain": "inference",
    "score": "inference",
}
FORWARD_ONLY = ("generate", "score_plain", "score")  # they classify and train nothing


def load_recipe(name: str) -> Callable:
    """Imports a recipe's module and returns its function."""
    return getattr(importlib.import_module(f"benchmarks.recipes.{RECIPES[name]}"), name)
