"""Stage eval: one module a table."""
