"""A fresh process finds the newest model with a tag, and prints the local path of its weights."""

from modelstore import Model

(model,) = Model.query_models(tags=["group-7"], max_results=1)
print(model.get_local_copy())
