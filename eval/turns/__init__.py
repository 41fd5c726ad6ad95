"""Policies over turns: a model writes, a tool answers in text or pictures, and the model goes on."""
