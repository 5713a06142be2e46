"""Functions over arrays. Imports nothing else of ours."""
