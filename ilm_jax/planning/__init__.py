"""Stage `plan`: what a run will cost on hardware you do not have."""
