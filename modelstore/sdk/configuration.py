"""Configurations of models and tasks: from the text that people write to a dictionary."""

from __future__ import annotations

from typing import Any

from modelstore.errors import InvalidConfigurationError

__all__ = ["parse_configuration"]


def parse_configuration(text: str) -> dict[str, Any]:
    """Return the dictionary that a text describes, as JSON or, with `pyhocon` installed, as HOCON.

    Raises:
        InvalidConfigurationError: It describes none.
    """
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _parse_hocon(text)
    if not isinstance(value, dict):
        raise InvalidConfigurationError(f"The configuration text is no dictionary: {text[:80]!r}", "Use config_text.")
    return value


def _parse_hocon(text: str) -> Any:
    try:
        from pyhocon import ConfigFactory
    except ImportError as error:
        raise InvalidConfigurationError(
            f"Could not parse configuration text {text[:80]!r} as JSON",
            'For HOCON: pip install "modelstore-local[hocon]". The text itself is config_text.',
        ) from error
    from pyhocon.exceptions import ConfigException
    from pyparsing import ParseBaseException

    try:
        return ConfigFactory.parse_string(text).as_plain_ordered_dict()
    except (ConfigException, ParseBaseException, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise InvalidConfigurationError(
            f"Could not parse configuration text {text[:80]!r} as JSON or HOCON", "Use config_text."
        ) from error
