"""Devices and processes: mesh axes, who takes part, where arrays lie, what chips can do."""
