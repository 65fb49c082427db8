"""Pages and pictures of models: HTML that needs no network, PNG, and lines for the terminal."""

from __future__ import annotations

from modelstore.pages.comparing import comparison_page
from modelstore.pages.document import write_page
from modelstore.pages.model import model_page
from modelstore.pages.pictures import picture_of
from modelstore.pages.sparklines import scalar_rows, sparkline, value_rows

__all__ = ["comparison_page", "model_page", "picture_of", "scalar_rows", "sparkline", "value_rows", "write_page"]
