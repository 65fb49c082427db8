"""The index: the SQLite tables that queries read. They are nothing but the fold of the journal."""
