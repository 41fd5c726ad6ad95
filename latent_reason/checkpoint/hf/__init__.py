"""A checkpoint as transformers loads it: configuration, model, chat template. All of it goes into an exported folder
(checkpoint/export/bundle.py), so that it works there without this library."""
