"""Checkpoint folders: save, load, export, push."""

from .config_file import CONFIG_FILE, find_checkpoint, read_config
from .io import backbone_folder, load, save

__all__ = ["CONFIG_FILE", "backbone_folder", "find_checkpoint", "load", "read_config", "save"]
