"""Similar texts: equal, near duplicates, or one contained in the other. The search is exact: no pair is missed.

A text is compared as the set of its shingles, runs of SHINGLE characters, after normalization. Two texts are near
duplicates when the Jaccard index of their sets is high. One is contained in the other when most of its own shingles
appear there. Both are found by prefix filtering (Chaudhuri et al. 2006, doi:10.1109/ICDE.2006.9). A text that shares a
fraction t of its n shingles with another shares one of its n - ceil(t n) + 1 rarest, so only texts with a rare shingle
in common are compared. No sketch (MinHash) is needed, and nothing is left to chance.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

SHINGLE = 5
BUCKETS = 2**30  # two of a million shingles meet in one with a chance of 1 in 2,000: it moves no figure
ROWS_AT_ONCE = 512
PAIRS_AT_ONCE = 200_000


def normalize(text: str) -> str:
    """The text as it is compared: NFKC, without white space, case folded. Width and layout carry no meaning."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).casefold()


@dataclass(frozen=True)
class SimilarPairs:
    """The pairs of similar texts.

    text: int of shape (n_texts,), a number of each normalized text, the same for equal ones. one, other: int of shape
    (n_pairs,), two different such numbers. containment: float of shape (n_pairs,), the share of one's shingles that
    appear in other. jaccard: float of shape (n_pairs,), the Jaccard index of both. A pair is listed in each direction
    whose containment reaches the bound.
    """

    text: np.ndarray
    one: np.ndarray
    other: np.ndarray
    containment: np.ndarray
    jaccard: np.ndarray

    def of(self, rows: np.ndarray) -> "SimilarPairs":
        """The pairs among some of the texts, bool of shape (n_texts,)."""
        text = self.text[rows]
        pairs = np.isin(self.one, text) & np.isin(self.other, text)
        return SimilarPairs(text, self.one[pairs], self.other[pairs], self.containment[pairs], self.jaccard[pairs])


def find_similar(texts: Sequence[str], near: float, contained: float, contained_characters: int) -> SimilarPairs:
    """All pairs with a Jaccard index of at least `near` or a containment of at least `contained`.

    Texts shorter than a shingle are compared as a whole only.

    Args:
        texts: n_texts texts.
        near: lowest Jaccard index of near duplicates, between 0 and 1.
        contained: lowest share of a text's shingles that appear in the other, between 0 and 1.
        contained_characters: shortest text whose containment counts: "好的，谢谢" says nothing about its source.
    """
    numbers: dict[str, int] = {}
    text = np.array([numbers.setdefault(normalize(each), len(numbers)) for each in texts], dtype=np.int64)
    length = np.array([len(each) for each in numbers])
    one, other, shared, size = pairs_with_containment(shingles(list(numbers)), min(near, contained))
    containment = shared / size[one]
    jaccard = shared / (size[one] + size[other] - shared)
    keep = (jaccard >= near) | ((containment >= contained) & (length[one] >= contained_characters))
    return SimilarPairs(text, one[keep], other[keep], containment[keep], jaccard[keep])


def shingles(texts: list[str]) -> sparse.csr_matrix:
    """Which text has which shingle: 0 or 1, shape (n_texts, n_shingles). The rarest shingle is in the first column."""
    if not any(len(text) >= SHINGLE for text in texts):
        return sparse.csr_matrix((len(texts), 0), dtype=np.float32)
    vectorizer = HashingVectorizer(
        analyzer="char",
        ngram_range=(SHINGLE, SHINGLE),
        lowercase=False,
        n_features=BUCKETS,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )
    hashed = vectorizer.transform(texts)
    _, column, count = np.unique(hashed.indices, return_inverse=True, return_counts=True)
    rank = np.empty(len(count), dtype=np.int32)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    matrix = sparse.csr_matrix((hashed.data, rank[column], hashed.indptr), shape=(len(texts), len(count)))
    matrix.sort_indices()
    return matrix


def pairs_with_containment(
    matrix: sparse.csr_matrix, bound: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ordered pairs of rows that share at least `bound` of the first row's shingles.

    Returns one, other, shared: int of shape (n_pairs,), the rows and their number of common shingles; and size: int of
    shape (n_texts,), the number of shingles of each row.
    """
    size = np.diff(matrix.indptr)
    least = np.ceil(bound * size - 1e-9)
    prefix_size = np.where(size > 0, size - least + 1, 0).astype(np.int64)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], size)
    indices = matrix.indices[place < np.repeat(prefix_size, size)]
    start = np.concatenate([[0], np.cumsum(prefix_size)])
    prefix = sparse.csr_matrix((np.ones(len(indices), np.float32), indices, start), shape=matrix.shape)
    by_shingle = matrix.T.tocsr()
    found = [np.empty((3, 0), dtype=np.int64)]
    for first in range(0, matrix.shape[0], ROWS_AT_ONCE):
        candidates = (prefix[first : first + ROWS_AT_ONCE] @ by_shingle).tocoo()
        one, other = candidates.row + first, candidates.col
        keep = (one != other) & (size[other] >= least[one])
        one, other = one[keep], other[keep]
        for begin in range(0, len(one), PAIRS_AT_ONCE):
            some, others = one[begin : begin + PAIRS_AT_ONCE], other[begin : begin + PAIRS_AT_ONCE]
            shared = np.asarray(matrix[some].multiply(matrix[others]).sum(axis=1)).ravel()
            enough = shared >= least[some]
            found.append(np.stack([some[enough], others[enough], shared[enough].astype(np.int64)]))
    one, other, shared = np.concatenate(found, axis=1)
    return one, other, shared, size
