"""Files that other people own, by name, pinned by sha256: cache, official URL, package."""
