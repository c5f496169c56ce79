"""The ai.onnx.ml domain: linear models of scikit-learn and what stands around them, in standard operators.

Coefficients become weights. Trees and support vector machines are refused: they are not made of weights that
a gradient moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from laconic.errors import ModelError, UnsupportedOperator
from laconic.training.backward import unsupported
from laconic.training.source.reading import Reading
from laconic.training.source.tensors import array_of, attributes, text

Write = Callable[[Reading, NodeProto], None]


def refusal(node: NodeProto, opset: int) -> UnsupportedOperator:
    """The error for an operator of the domain that cannot be trained."""
    name = node.name or next(filter(None, node.output), "")
    remedy = "train another kind of model: linear, or a neural network"
    if node.op_type.startswith("Tree"):
        remedy = f"decision trees have no gradient; {remedy}"
    elif node.op_type.startswith("SVM"):
        remedy = f"a support vector machine's vectors are data, not weights; {remedy}"
    else:
        remedy = "leave this step out of the exported pipeline and do it before the data is fed"
    return UnsupportedOperator(node.op_type, domain=node.domain, opset=opset, node=name, remedy=remedy)


# --- linear models ---


def _scores(r: Reading, node: NodeProto, settings: Mapping[str, Any]) -> tuple[str, int]:
    """x times the coefficients plus the intercepts, and the number of rows of coefficients."""
    coefficients = np.array(settings.get("coefficients", ()), np.float32)
    intercepts = np.array(settings.get("intercepts", ()), np.float32)
    x = _real(r, node.input[0])
    features = r.shape(x)[-1] if r.rank(x) else None
    rows = len(intercepts)
    if not rows and isinstance(features, int) and features:
        rows = coefficients.size // features
    width = coefficients.size // rows if rows else 0
    if not width or width * rows != coefficients.size or (isinstance(features, int) and width != features):
        raise ModelError(
            f"number of coefficients of node {node.name or node.output[0]!r}",
            value=coefficients.size,
            limit=f"{rows} rows of {features} features",
            remedy="export the model again: this file contradicts itself",
        )
    matrix = coefficients.reshape(rows, width)
    if settings.get("post_transform") == "LOGISTIC" and _is_mirrored(matrix, intercepts):
        # Rows (-w, w) under the logistic function are one logit, written twice.
        matrix, intercepts, rows = matrix[1:], intercepts[1:], 1
    w = r.weight("coefficients", matrix)
    bias = [r.weight("intercepts", intercepts)] if len(intercepts) else []
    return r.op("Gemm", x, w, *bias, transB=1), rows


def _is_mirrored(matrix: NDArray[np.float32], intercepts: NDArray[np.float32]) -> bool:
    both = (matrix, intercepts) if len(intercepts) else (matrix,)
    return len(matrix) == 2 and all(np.array_equal(part[0], -part[1]) for part in both)


def _real(r: Reading, x: str) -> str:
    known = r.types.get(x)
    if known is None or known.dtype == TensorProto.FLOAT:
        return x
    return r.op("Cast", x, to=TensorProto.FLOAT)


def _linear_regressor(r: Reading, node: NodeProto) -> None:
    settings = attributes(node)
    if settings.get("post_transform", "NONE") != "NONE":
        raise unsupported(node)
    scores, _ = _scores(r, node, settings)
    r.alias(node.output[0], scores)


def _linear_classifier(r: Reading, node: NodeProto) -> None:
    """Scores of each class, what `post_transform` makes of them, and the label of the greatest.

    One row of coefficients for two classes gives the score s of the second.
    """
    settings = attributes(node)
    names = _labels(settings)
    scores, rows = _scores(r, node, settings)
    transform = settings.get("post_transform", "NONE")
    if transform not in ("NONE", "SOFTMAX", "LOGISTIC") or (
        names is not None and len(names) not in (rows, 2)
    ):
        raise unsupported(node)
    single = rows == 1 and names is not None and len(names) == 2
    two = r.op("MatMul", scores, r.floats([[0.0, 1.0]])) if single else scores
    index = r.op("ArgMax", two, axis=1, keepdims=0)
    if single:
        if transform == "LOGISTIC":
            p = r.op("Softmax", two, axis=-1)
        else:
            # onnxruntime gives (1 - s, s), also where a softmax is asked for.
            p = r.op("Add", r.op("MatMul", scores, r.floats([[-1.0, 1.0]])), r.floats([1.0, 0.0]))
    elif transform == "NONE":
        p = scores
    else:
        p = r.op("Softmax", scores, axis=-1) if transform == "SOFTMAX" else r.op("Sigmoid", scores)
    if len(node.output) > 1 and node.output[1]:
        r.alias(node.output[1], p)
    if node.output[0]:
        label = index if names is None else r.op("Gather", r.constant(names), index)
        r.alias(node.output[0], label)


def _labels(settings: Mapping[str, Any]) -> NDArray[Any] | None:
    if settings.get("classlabels_ints"):
        return np.array(settings["classlabels_ints"], np.int64)
    strings = settings.get("classlabels_strings")
    return np.array([text(s) for s in strings], object) if strings else None


def _normalizer(r: Reading, node: NodeProto) -> None:
    """Rows divided by their norm.

    Of sigmoids, one for each class, that is a softmax: sigmoid(z) = exp(-softplus(-z)).
    """
    x, norm = _real(r, node.input[0]), attributes(node).get("norm", "MAX")
    maker = r.maker(x)
    if norm == "L1" and maker is not None and maker.op_type == "Sigmoid" and r.rank(x) == 2:
        log = r.op("Neg", r.op("Softplus", r.op("Neg", maker.input[0])))
        r.op("Softmax", log, outputs=list(node.output), axis=-1)
        return
    if norm == "L1" and maker is not None and maker.op_type == "Softmax":
        r.alias(node.output[0], x)
        return
    reductions = {"L1": "ReduceL1", "L2": "ReduceL2", "MAX": "ReduceMax"}
    if norm not in reductions:
        raise unsupported(node)
    size = r.op(reductions[norm], x, r.ints(-1))
    # Rows whose size is zero stay as they are; by its greatest element a row may have a size below zero.
    size = r.op("Where", r.op("Equal", size, r.floats(0)), r.floats(1), size)
    r.op("Div", x, size, outputs=list(node.output))


# --- preparation of data ---


def _scaler(r: Reading, node: NodeProto) -> None:
    settings, x = attributes(node), _real(r, node.input[0])
    if settings.get("offset"):
        x = r.op("Sub", x, r.floats(settings["offset"]))
    if settings.get("scale"):
        x = r.op("Mul", x, r.floats(settings["scale"]))
    r.alias(node.output[0], x)


def _imputer(r: Reading, node: NodeProto) -> None:
    settings, x = attributes(node), node.input[0]
    floats = settings.get("imputed_value_floats")
    if floats:
        replaced = settings.get("replaced_value_float", 0.0)
        test = r.op("IsNaN", x) if np.isnan(replaced) else r.op("Equal", x, r.floats(replaced))
        value = r.floats(floats)
    else:
        test = r.op("Equal", x, r.constant(settings.get("replaced_value_int64", 0), np.int64))
        value = r.constant(settings.get("imputed_value_int64s", [0]), np.int64)
    r.op("Where", test, value, x, outputs=list(node.output))


def _array_feature_extractor(r: Reading, node: NodeProto) -> None:
    x, index = node.input
    flat = r.op("Reshape", index, r.ints(-1))
    if r.rank(x) == 1:
        x = r.op("Unsqueeze", x, r.ints(0))
    r.op("Gather", x, flat, outputs=list(node.output), axis=-1)


def _feature_vectorizer(r: Reading, node: NodeProto) -> None:
    columns = [_real(r, i) for i in node.input]
    columns = [r.op("Reshape", c, r.ints(-1, 1)) if r.rank(c) == 1 else c for c in columns]
    r.op("Concat", *columns, outputs=list(node.output), axis=1)


def _binarizer(r: Reading, node: NodeProto) -> None:
    threshold = r.floats(attributes(node).get("threshold", 0.0))
    over = r.op("Greater", _real(r, node.input[0]), threshold)
    r.op("Cast", over, outputs=list(node.output), to=TensorProto.FLOAT)


def _one_hot_encoder(r: Reading, node: NodeProto) -> None:
    settings, x = attributes(node), node.input[0]
    categories = settings.get("cats_int64s")
    if not categories or not settings.get("zeros", 1):
        raise refusal(node, 1)
    x = r.op("Unsqueeze", r.op("Cast", x, to=TensorProto.INT64), r.ints(-1))
    same = r.op("Equal", x, r.constant(categories, np.int64))
    r.op("Cast", same, outputs=list(node.output), to=TensorProto.FLOAT)


def _label_encoder(r: Reading, node: NodeProto) -> None:
    """A look-up; keys are integers or real numbers, since no graph of numbers holds text."""
    settings = attributes(node)
    keys = _table(settings, "keys")
    values = _table(settings, "values")
    if keys is None or values is None or keys.dtype == object or len(keys) != len(values):
        raise refusal(node, 2)
    default = _default(settings, values.dtype)
    x = r.op("Unsqueeze", node.input[0], r.ints(-1))
    same = r.op("Cast", r.op("Equal", x, r.constant(keys)), to=TensorProto.FLOAT)
    # A last column that is half true wins where no key fits.
    columns = r.op("Concat", *_with_half(r, same), axis=-1)
    index = r.op("ArgMax", columns, axis=-1, keepdims=0)
    table = np.concatenate([values, np.array([default], values.dtype)])
    r.op("Gather", r.constant(table), index, outputs=list(node.output))


def _with_half(r: Reading, same: str) -> Sequence[str]:
    half = r.op("Add", r.op("Mul", r.op("ReduceMax", same, r.ints(-1)), r.floats(0)), r.floats(0.5))
    return (same, half)


def _table(settings: Mapping[str, Any], kind: str) -> NDArray[Any] | None:
    if f"{kind}_int64s" in settings:
        return np.array(settings[f"{kind}_int64s"], np.int64)
    if f"{kind}_floats" in settings:
        return np.array(settings[f"{kind}_floats"], np.float32)
    if f"{kind}_strings" in settings:
        return np.array([text(s) for s in settings[f"{kind}_strings"]], object)
    if f"{kind}_tensor" in settings:
        return array_of(settings[f"{kind}_tensor"])
    return None


def _default(settings: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    if "default_tensor" in settings:
        return array_of(settings["default_tensor"]).ravel()[0]
    if dtype.kind == "O":
        return settings.get("default_string", "_Unused")
    return settings.get("default_int64", -1) if dtype.kind == "i" else settings.get("default_float", -0.0)


def _zip_map(r: Reading, node: NodeProto) -> None:
    """Probabilities as a matrix, not as dictionaries."""
    r.alias(node.output[0], node.input[0])


OPERATORS: Mapping[str, Write] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot_encoder,
    "Scaler": _scaler,
    "ZipMap": _zip_map,
}
"""How each is written in the standard; the others of the domain are refused."""
