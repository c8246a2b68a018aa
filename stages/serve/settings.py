"""The settings of a server, as its command line gives them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stages.paths import RUNS, SELECTED

KEPT_IN = RUNS / "serve"  # audit log
VERDICTS = Path("data/raw/reviewed.jsonl")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attributes:
    folder: models/selected, or an export.
    host, port: where the server listens. Port 0 takes a free one.
    names: further names by which clients may address the server, as the header Host has them.
    token: what requests have to bring as `Authorization: Bearer …`; None lets everybody in.
    max_body_bytes: of a request.
    max_texts: of a request.
    max_explained: texts of a request with `explain`, since each costs as much as its sentences.
    max_characters: of a text.
    max_waiting: texts in the queue, a sentence of an explained text counting as one.
    batch_tokens: padded tokens in a batch, by an estimate from the bytes of the texts.
    batch_wait: seconds that a lone text waits for others.
    profile: "plain", or "speed" for compiled layers and CUDA graphs.
    timeout: seconds until a request that was not scored is given up.
    client_rate: texts a second from one address, None for no limit. Ten seconds' worth may come at once.
    max_connections: open at the same time.
    audit: what the log of verdicts has of a text: its hash or the text; off writes no log.
    audit_folder: of the log's files.
    audit_bytes: size from which on a new file is begun.
    retention_days: days until lines are deleted.
    verdicts: where people's verdicts go; None allows no review.
    queues: files of classified texts, as predict writes them, that wait for a person's verdict.
    """

    folder: Path = SELECTED
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    token: str | None = None
    max_body_bytes: int = 4_000_000
    max_texts: int = 256
    max_explained: int = 8
    max_characters: int = 20_000
    max_waiting: int = 2048
    batch_tokens: int = 4096
    batch_wait: float = 0.003
    profile: Literal["plain", "speed"] = "plain"
    timeout: float = 30.0
    client_rate: float | None = None
    max_connections: int = 512
    audit: Literal["hash", "text", "off"] = "hash"
    audit_folder: Path = KEPT_IN
    audit_bytes: int = 64_000_000
    retention_days: int = 90
    verdicts: Path | None = VERDICTS
    queues: tuple[Path, ...] = ()

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach the server."""
        return self.host not in LOOPBACK
