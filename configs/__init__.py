"""One short get_config() a file."""
