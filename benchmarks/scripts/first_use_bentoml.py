"""A fresh process with an empty BentoML home registers its first model. Argument: the weights file."""

import shutil
import sys

import bentoml

with bentoml.models.create("first", labels={"bench": "1"}) as model:
    shutil.copy(sys.argv[1], model.path_of("weights.bin"))
print(model.tag)
