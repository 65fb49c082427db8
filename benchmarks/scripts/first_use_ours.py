"""A fresh process in an empty folder registers its first model. Argument: the weights file."""

import sys

from modelstore import OutputModel, Task

task = Task.init(project_name="bench", task_name="first")
model = OutputModel(task=task, name="first", framework="PyTorch", tags=["bench"])
model.update_weights(weights_filename=sys.argv[1], async_enable=False, auto_delete_file=False)
print(model.id)
