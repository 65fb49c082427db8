"""Bytes behind fsspec: URIs, transfers that verify what they move, the registry's own objects, packages."""
