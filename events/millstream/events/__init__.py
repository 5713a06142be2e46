"""What may be said on the log, and the log itself. Imports nothing else of ours."""
