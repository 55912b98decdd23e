"""Estimators of scikit-learn predict here what they predict there."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from skl2onnx import to_onnx

CLASSIFIERS: dict[str, Any] = {
    "a network of one layer": lambda: make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=40, random_state=0)),
    "a network with tanh": lambda: MLPClassifier((6, 4), activation="tanh", max_iter=40, random_state=0),
    "logistic regression": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "normalized by l1": lambda: make_pipeline(Normalizer("l1"), LogisticRegression()),
    "normalized by max": lambda: make_pipeline(Normalizer("max"), LogisticRegression()),
}
REGRESSORS: dict[str, Any] = {
    "a network": lambda: make_pipeline(
        MinMaxScaler(), MLPRegressor(hidden_layer_sizes=(8,), activation="logistic", max_iter=40, random_state=0)
    ),
    "least squares": LinearRegression,
    "least squares of scaled rows": lambda: make_pipeline(StandardScaler(), Ridge()),
}


def converted(estimator: Any, rows: Any, **options: Any) -> bytes:
    """The estimator as a file of ONNX."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return to_onnx(estimator, rows[:1], options={id(last): options} if options else None).SerializeToString()


def fitted(estimator: Any, rows: Any, targets: Any) -> Any:
    """The estimator, after as few steps as it was told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(rows, targets)


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any]:
    """Rows in float32, and their classes."""
    rows, classes = load_iris(return_X_y=True)
    return rows.astype(np.float32), classes


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_gives_its_classes_and_probabilities(name: str, classes: int, iris: Any, tc: ModuleType) -> None:
    rows, targets = iris
    targets = np.minimum(targets, classes - 1)
    estimator = fitted(CLASSIFIERS[name](), rows, targets)
    module = tc.onnx.load(converted(estimator, rows, zipmap=False))
    label, probabilities = module(rows).values()
    np.testing.assert_array_equal(label.numpy(), estimator.predict(rows))
    np.testing.assert_allclose(probabilities.detach().numpy(), estimator.predict_proba(rows), atol=1e-5)


# The converter has a network's outputs in one column, also where there are two.
@pytest.mark.parametrize(
    ("name", "outputs"),
    [(name, outputs) for name in REGRESSORS for outputs in (1, 2) if (name, outputs) != ("a network", 2)],
)
def test_a_regressor_gives_its_predictions(name: str, outputs: int, iris: Any, tc: ModuleType) -> None:
    rows, targets = iris
    wanted = targets.astype(float) if outputs == 1 else np.c_[targets, rows[:, 0]]
    estimator = fitted(REGRESSORS[name](), rows, wanted)
    found = tc.onnx.load(converted(estimator, rows))(rows).detach().numpy()
    np.testing.assert_allclose(found, estimator.predict(rows).reshape(len(rows), outputs), atol=1e-4)


def test_a_scaler_gives_its_rows(iris: Any, tc: ModuleType) -> None:
    rows, _ = iris
    for scaler in (StandardScaler(), StandardScaler(with_mean=False), MinMaxScaler()):
        scaler.fit(rows)
        found = tc.onnx.load(converted(scaler, rows))(rows)
        np.testing.assert_allclose(found.detach().numpy(), scaler.transform(rows), atol=1e-5)


def test_dictionaries_and_texts_are_refused_with_what_to_do(iris: Any, tc: ModuleType) -> None:
    rows, targets = iris
    estimator = LogisticRegression().fit(rows, targets)
    with pytest.raises(tc.TensorError, match="zipmap': False"):
        tc.onnx.load(converted(estimator, rows))
    texts = LogisticRegression().fit(rows, targets.astype(str))
    with pytest.raises(tc.TensorError, match="'label' is of string, which tensors lack"):
        tc.onnx.load(converted(texts, rows, zipmap=False))
