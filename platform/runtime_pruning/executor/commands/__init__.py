"""Native calls in a table, run by one call from Python."""
