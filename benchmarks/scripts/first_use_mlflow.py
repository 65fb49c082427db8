"""A fresh process with a new MLflow database registers its first model.

Arguments: the weights file, an empty folder.
"""

import os
import sys

from mlflow import MlflowClient

source, folder = sys.argv[1:]
client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
experiment = client.create_experiment("bench", artifact_location=f"{folder}/artifacts")
run = client.create_run(experiment)
client.log_artifact(run.info.run_id, source)
client.create_registered_model("first")
version = client.create_model_version(
    "first", f"{run.info.artifact_uri}/{os.path.basename(source)}", run_id=run.info.run_id, tags={"bench": "1"}
)
print(version.version)
