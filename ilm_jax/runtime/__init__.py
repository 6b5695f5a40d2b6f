"""Devices and processes: mesh axes, processes of a job, placement of arrays, chips, memory."""
