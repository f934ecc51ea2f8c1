"""The code and the library versions that another environment needs to load a registered model."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = [str(ROOT / "ml"), str(ROOT / "settings.py")]
"""The packages of adseq that its models import; they travel with the model."""

MODEL_LIBRARIES = (
    "mlflow",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "pydantic-settings",
    "scipy",
    "torch",
)
RELEVANCE_LIBRARIES = (*MODEL_LIBRARIES, "scikit-learn", "skops")
HEAD_LIBRARIES = ("mlflow", "numpy", "torch")


def script(name: str) -> str:
    """Return the path of the script of ``ml.versions.registered`` that MLflow runs to load a model."""
    return str(ROOT / "ml" / "versions" / "registered" / f"{name}.py")


def requirements(libraries: tuple[str, ...]) -> list[str]:
    """Return the installed versions as lines of a requirements file.

    The local part of a version (``2.9.1+cpu``) is left out: it names a build that the public index does not have.
    """
    return [f"{library}=={version(library).partition('+')[0]}" for library in libraries]
