"""The stream processors: what moves through the topics."""
