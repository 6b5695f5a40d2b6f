"""What a run will cost on chips that nobody owns yet: stage `plan`."""
