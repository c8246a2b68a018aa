"""Downloads the base model that params.yaml names into models/base, with a record of what it is (base.json).

python -m stages.fetch

Takes weights as safetensors, the configuration and the tokenizer, and nothing that could run. A model that is there
already and unchanged is not downloaded again.
"""

from stages import params
from stages.command import run
from stages.fetch.publish import already_fetched, publish, staging_folder
from stages.fetch.sources import SOURCES
from stages.paths import BASE_MODEL


def main() -> None:
    model = params.load().model
    identity = already_fetched(model, BASE_MODEL)
    if identity is None:
        staging = staging_folder(model)
        weights = SOURCES[model.source](model, staging)
        identity = publish(weights, model, BASE_MODEL, staging)
    print(f"fetch: {identity['id']} ({identity['license']}), weights sha256 {identity['sha256'][:12]}, in {BASE_MODEL}")


if __name__ == "__main__":
    run(main, options=False)
