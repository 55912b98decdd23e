"""scikit-learn and scipy on tensors: SCIPY_ARRAY_API=1 python learned.py torch"""

import importlib
import sys
import warnings

import numpy as np

import sklearn
from scipy import special, stats
from sklearn import metrics, preprocessing
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeCV
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_predict, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

torch = importlib.import_module(sys.argv[1])
sklearn.set_config(array_api_dispatch=True)
warnings.simplefilter("ignore")
random = np.random.RandomState(0)
points = random.randn(60, 5).astype("float32")
X = torch.asarray(points)
classes = torch.asarray(np.digitize(points[:, 0], [-0.5, 0.5]).astype("int64"))
others = torch.asarray(np.roll(np.digitize(points[:, 0], [-0.5, 0.5]), 3).astype("int64"))
sides, likely = torch.asarray((points[:, 0] > 0).astype("int64")), torch.asarray(random.rand(60).astype("float32"))
target = torch.asarray((points @ np.arange(5)).astype("float32"))
near = target + 0.1 * likely


def show(name, value):
    if isinstance(value, (tuple, list)):
        for each in value:
            show(name, each)
    elif isinstance(value, torch.Tensor):
        read = np.round(np.asarray(value).astype("float64"), 2) + 0.0
        print(name, "tensor", value.dtype, tuple(value.shape), read.ravel()[:12].tolist())
    elif isinstance(value, np.ndarray):
        print(name, "array", value.dtype, value.shape, np.round(value.ravel()[:12].astype("float64"), 2).tolist())
    else:
        print(name, type(value).__name__, round(float(value), 3))


for scaler in (
    preprocessing.StandardScaler(),
    preprocessing.MinMaxScaler(),
    preprocessing.MaxAbsScaler(),
    preprocessing.Normalizer(),
    preprocessing.Binarizer(),
    preprocessing.PolynomialFeatures(2),
    Nystroem(n_components=4, random_state=0),
):
    show(type(scaler).__name__, scaler.fit_transform(X))
for solver in ("full", "covariance_eigh"):
    pca = PCA(2, svd_solver=solver, whiten=True).fit(X)
    show(solver, [abs(pca.transform(X)), pca.explained_variance_, pca.inverse_transform(pca.transform(X))])
for model in (LinearDiscriminantAnalysis(), GaussianNB(), RidgeClassifier(solver="svd")):
    show(type(model).__name__, [model.fit(X, classes).predict(X), model.score(X, classes)])
for model in (Ridge(solver="svd"), RidgeCV()):
    show(type(model).__name__, [model.fit(X, target).predict(X), model.coef_, model.score(X, target)])
show("mixture", GaussianMixture(2, init_params="random", random_state=0).fit(X).predict(X))
show("labels", preprocessing.LabelEncoder().fit_transform(classes))
show("pipeline", make_pipeline(preprocessing.StandardScaler(), Ridge(solver="svd")).fit(X, target).predict(X))
show("search", GridSearchCV(Ridge(solver="svd"), {"alpha": [0.1, 1.0]}, cv=3).fit(X, target).predict(X))
show("folds", cross_val_predict(Ridge(solver="svd"), X, target, cv=3))
show("split", train_test_split(X, classes, random_state=0))
for metric in (metrics.accuracy_score, metrics.confusion_matrix, metrics.balanced_accuracy_score):
    show(metric.__name__, metric(classes, others))
for metric in (metrics.f1_score, metrics.precision_score, metrics.recall_score, metrics.jaccard_score):
    show(metric.__name__, metric(classes, others, average="macro"))
for metric in (metrics.log_loss, metrics.brier_score_loss, metrics.average_precision_score, metrics.det_curve):
    show(metric.__name__, metric(sides, likely))
for metric in (metrics.r2_score, metrics.mean_absolute_error, metrics.mean_squared_error, metrics.max_error):
    show(metric.__name__, metric(target, near))
for metric in (metrics.pairwise.rbf_kernel, metrics.pairwise.cosine_similarity, metrics.pairwise.euclidean_distances):
    show(metric.__name__, metric(X, X))
show("special", [special.erf(likely), special.logsumexp(likely), special.expit(target), special.xlogy(likely, likely)])
show(
    "stats",
    [stats.zscore(likely), stats.skew(likely), stats.pearsonr(target, near)[0], stats.ttest_ind(target, near)[0]],
)
