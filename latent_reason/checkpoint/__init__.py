"""Checkpoint folders: save, load, export, push."""

from .io import CARD, load, read_card, resolve, save, stock

__all__ = ["CARD", "load", "read_card", "resolve", "save", "stock"]
