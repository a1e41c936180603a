"""Formats in which networks travel, one file each."""
