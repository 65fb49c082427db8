"""A fresh process finds the newest version with a tag, and prints the local path of its file. Argument: the folder."""

import sys

import mlflow
from mlflow import MlflowClient

client = MlflowClient(f"sqlite:///{sys.argv[1]}/mlflow.db")
(version,) = client.search_model_versions("tag.group = '7'", max_results=1, order_by=["last_updated_timestamp DESC"])
print(mlflow.artifacts.download_artifacts(version.source))
