"""What MLflow runs to make the model: it keeps this file in place of a pickle."""

from mlflow.models import set_model

from runtime_pruning.deploy.mlflow_model import BundleModel

set_model(BundleModel())
