"""Devices that say how many joules they have used; one file, one source."""
