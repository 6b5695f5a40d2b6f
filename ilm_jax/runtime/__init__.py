"""Devices and processes: mesh axes, the processes of a job, placement of arrays, facts of chips, memory."""
