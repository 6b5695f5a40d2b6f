"""What a run reports while it works: log line, heartbeat, goodput, utilization, curves."""
