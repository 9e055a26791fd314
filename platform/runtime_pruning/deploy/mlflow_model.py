"""An exported bundle as a model of MLflow's own format: `mlflow models serve` runs it.

The model holds the bundle and this package's code; nothing is pickled. Its signature declares the
column ``image`` (encoded images; base64 in JSON) and the parameter ``budget``.

    {"dataframe_split": {"columns": ["image"], "data": [["iVBORw0..."]]},
     "params": {"budget": "macs=2e7"}}
"""

import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

import pruning_envs
import runtime_pruning
from runtime_pruning.deploy.card import read_card
from runtime_pruning.deploy.requests import asked, told
from runtime_pruning.deploy.shipped import ShippedBundle, load_bundle
from runtime_pruning.errors import ConfigError, UserError

CODE = "mlflow_script.py"
# What the model needs beside the code that it brings.
_NEEDED = (
    "filelock",
    "gymnasium",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "scipy",
    "torch",
    "tqdm",
)


class RefusedError(MlflowException):  # type: ignore[misc]
    """A request that cannot be answered: 400, and one sentence that says why.

    MLflow's server puts the whole of the request before the message of other errors.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        """The sentence."""
        return self._message

    @message.setter
    def message(self, value: str) -> None:
        """Keep the sentence."""


with warnings.catch_warnings():
    # It asks for type hints of MLflow's own kinds, in place of which there is a signature.
    warnings.filterwarnings("ignore", ".*to enable data validation")

    class BundleModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        """Answers rows of encoded images."""

        shipped: ShippedBundle

        def load_context(self, context: Any) -> None:
            """Load the bundle."""
            self.shipped = load_bundle(context.artifacts["bundle"])

        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            """Return an object per image; see `requests.told`.

            Raises:
                RefusedError: images or budget cannot be used.
            """
            try:
                request = asked(
                    list(model_input["image"]), (params or {}).get("budget"), self.shipped
                )
                return told(self.shipped.run(*request), self.shipped.card.dense_macs)
            except UserError as error:
                raise RefusedError(str(error)) from error


def save_model(bundle: Path, out: Path) -> None:
    """Write the model of a bundle to a folder that is empty or absent.

    Raises:
        DataError: no exported bundle.
        ConfigError: the folder holds something.
    """
    read_card(bundle)
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"The folder of a new model must be empty, but {str(out)!r} is not.")
    packages = [Path(str(package.__file__)).parent for package in (runtime_pruning, pruning_envs)]
    with warnings.catch_warnings():
        # It wants an example of the input, and would load and run the model for it.
        warnings.filterwarnings("ignore", ".*input example was not provided")
        mlflow.pyfunc.save_model(
            str(out),
            python_model=str(Path(__file__).with_name(CODE)),
            artifacts={"bundle": str(bundle.resolve())},
            code_paths=[str(package) for package in packages],
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.binary, "image")]),
                params=ParamSchema([ParamSpec("budget", DataType.string, "")]),
            ),
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED],
        )
    for cache in out.rglob("__pycache__"):
        shutil.rmtree(cache)
