"""A fresh process finds the newest model with a label, and prints the local path of its file.

BentoML has no query by label: all models are listed and looked through.
"""

import bentoml

found = [model for model in bentoml.models.list() if model.info.labels.get("group") == "7"]
newest = max(found, key=lambda model: model.creation_time)
print(newest.path_of("weights.bin"))
