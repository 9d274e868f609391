"""Callbacks and patches for training frameworks: one file each, which loads its framework only when it is used."""
