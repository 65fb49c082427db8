"""The limit: the same rows, one statement, one path. Argument: the folder."""

import os
import sqlite3
import sys

connection = sqlite3.connect(f"file:{sys.argv[1]}/registry.db?mode=ro", uri=True)
(path,) = connection.execute(
    "SELECT uri FROM models JOIN tags ON tags.model = models.id WHERE tags.tag = ? ORDER BY updated DESC LIMIT 1",
    ("group-7",),
).fetchone()
os.stat(path)
print(path)
