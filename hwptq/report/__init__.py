"""What was compiled, and what running it has shown."""
