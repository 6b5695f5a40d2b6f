"""Files of other publishers, by name and pinned by sha256: cache, official URL, package."""
