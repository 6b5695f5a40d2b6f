"""A trained run behind HTTP: the page, the API, and what guards them. See docs/serve.md."""
