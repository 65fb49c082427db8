"""Frozen records: what the layers hand to each other. Pure: no I/O, no third-party imports."""
