"""Export for llama.cpp."""

from pathlib import Path
from typing import Any

from stages.errors import UserError
from stages.export.merge import Source


def write_gguf(folder: Path, source: Source, dtype: str) -> dict[str, Any]:
    raise UserError("gguf can't be exported yet")
