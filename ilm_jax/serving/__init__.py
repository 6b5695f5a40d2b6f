"""A trained run over HTTP: the page, the API, and the limits that guard them. See docs/serve.md."""
