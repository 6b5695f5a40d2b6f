"""What is seen of a run while it works: log line, heartbeat, goodput, utilization, curves."""
