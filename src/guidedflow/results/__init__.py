"""From runs to what people look at: the published numbers, tables, statistics, pictures and a page."""

from guidedflow.results.reference import Published, published

__all__ = ["Published", "published"]
