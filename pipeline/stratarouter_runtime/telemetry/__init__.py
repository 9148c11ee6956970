"""What the runtime tells an operator: metrics, logs and traces, and the HTTP server for metrics and health."""
