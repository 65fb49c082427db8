"""The query language: tag lists, Python expressions and textual conditions, all of which make one small tree.

Pure: no I/O, nothing imported but the standard library. `accepts` says what a tree means; whatever compiles a tree
for a database must agree with it.
"""

from __future__ import annotations

from modelstore.query.evaluate import Subject, accepts, matches, number_of, regexp
from modelstore.query.explain import explain
from modelstore.query.expressions import Field, Meta, Metric, Search, Tag
from modelstore.query.fields import FIELDS, TASK_FIELDS, to_ms
from modelstore.query.filters import Cursor, ModelQuery, condition
from modelstore.query.order import NEWEST_FIRST, Order, order_key, parse_order
from modelstore.query.simplify import simplify
from modelstore.query.tags import OPERATORS, parse_tags
from modelstore.query.tree import (
    FALSE,
    TRUE,
    AllOf,
    AnyOf,
    Compare,
    FieldTarget,
    HasTag,
    Mentions,
    MetaTarget,
    MetricTarget,
    Node,
    Not,
    TextTarget,
    Untagged,
    all_of,
    any_of,
    has_pattern,
    has_search,
    negate,
)
from modelstore.query.where import parse_where

__all__ = [
    "FALSE",
    "FIELDS",
    "NEWEST_FIRST",
    "OPERATORS",
    "TASK_FIELDS",
    "TRUE",
    "AllOf",
    "AnyOf",
    "Compare",
    "Cursor",
    "Field",
    "FieldTarget",
    "HasTag",
    "Mentions",
    "Meta",
    "MetaTarget",
    "Metric",
    "MetricTarget",
    "ModelQuery",
    "Node",
    "Not",
    "Order",
    "Search",
    "Subject",
    "Tag",
    "TextTarget",
    "Untagged",
    "accepts",
    "all_of",
    "any_of",
    "condition",
    "explain",
    "has_pattern",
    "has_search",
    "matches",
    "negate",
    "number_of",
    "order_key",
    "parse_order",
    "parse_tags",
    "parse_where",
    "regexp",
    "simplify",
    "to_ms",
]
