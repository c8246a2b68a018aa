"""What a language model has to beat: character n-grams and a linear classifier."""

import time

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from stages.evaluate.systems import System, comparison_threshold
from stages.params import Select
from stages.text.example import Example


def build_baseline() -> Pipeline:
    """TF-IDF of character 1- to 3-grams with logistic regression; needs no words, so it reads Chinese as it stands."""
    return make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 3)), LogisticRegression(C=10, max_iter=1000))


def baseline_predictions(train: list[Example], valid: list[Example], test: list[Example], rule: Select) -> System:
    """Fits the baseline on train, chooses its threshold on valid by `rule`, scores test."""
    print(f"evaluate: fitting the TF-IDF baseline on {len(train)} rows", flush=True)
    baseline = build_baseline().fit([row.input for row in train], [row.label for row in train])
    valid_scores = baseline.predict_proba([row.input for row in valid])[:, 1]
    threshold = comparison_threshold([row.label for row in valid], valid_scores, rule)
    start = time.perf_counter()
    y_score = baseline.predict_proba([row.input for row in test])[:, 1]
    return System(y_score, threshold, time.perf_counter() - start)
