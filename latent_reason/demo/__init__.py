"""A page in the browser to ask one or two checkpoints about pictures and watch them answer."""
