"""The inference model and its parts."""
