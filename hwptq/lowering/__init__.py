"""What rules that lower a node of a QDQ graph to operators stand on; it knows no operator."""
