"""Checkpoint folders: save, load, export, push."""

from .io import CARD, FORMAT, load, read_card, resolve, save, stock

__all__ = ["CARD", "FORMAT", "load", "read_card", "resolve", "save", "stock"]
