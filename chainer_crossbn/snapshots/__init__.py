"""Snapshots of a run, from which it goes on as if it had never stopped."""
