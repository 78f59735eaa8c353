"""What a gateway tells of itself: metrics, log lines, traces. Nothing of it holds a prompt."""
