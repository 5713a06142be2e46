"""What is true now: folds of the journal, the stores that keep them, and what can be asked of them."""
