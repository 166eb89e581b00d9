"""Decides. No operating system, no clock, no logging: events and a time come in, effects go out."""
