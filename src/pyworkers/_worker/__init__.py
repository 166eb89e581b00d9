"""The child, after fork: its first lines, the run of the handler, and what a handler can ask of its app."""
