"""What a run will cost on hardware you do not have: stage `plan`."""
