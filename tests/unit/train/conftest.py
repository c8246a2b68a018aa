"""A training of 11 steps, whose random states all count."""

import dataclasses

import pytest

from tests.unit.train.trainers import trainer_for


@pytest.fixture(scope="package")
def train(train_params):
    """11 steps in two epochs and a bit, accumulated, with dropout: all random states count."""
    return dataclasses.replace(
        train_params,
        num_train_epochs=2.5,
        gradient_accumulation_steps=2,
        lora_dropout=0.2,
        eval_steps=3,
        logging_steps=2,
        save_steps=1,
        learning_rate=2e-3,
        per_device_train_batch_size=4,
    )


@pytest.fixture(scope="package")
def start(base_folder, prompt, examples, train):
    return lambda folder, params=train: trainer_for(base_folder, prompt, examples, params, folder)
