"""The same by hand, as durable. Arguments: the weights file, an empty folder."""

import os
import sqlite3
import sys
import time

source, folder = sys.argv[1:]
connection = sqlite3.connect(f"{folder}/registry.db", isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA synchronous=FULL")
connection.execute("CREATE TABLE models (id TEXT PRIMARY KEY, name TEXT, uri TEXT, created INTEGER)")
identity = os.urandom(16).hex()
with open(source, "rb") as file:
    content = file.read()
with open(f"{folder}/.{identity}", "wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
os.rename(f"{folder}/.{identity}", f"{folder}/{identity}")
connection.execute(
    "INSERT INTO models VALUES (?, ?, ?, ?)", (identity, "first", f"{folder}/{identity}", time.time_ns())
)
connection.close()
print(identity)
