"""The maths: features, models, training, retrieval, evaluation."""

# skops, which reads the trees of a relevance model, looks each function of SciPy up in all loaded modules, the oldest
# first. Behind torch and MLflow that takes two seconds of each day and of each start of the service.
import scipy.special  # noqa: F401
