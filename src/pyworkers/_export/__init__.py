"""Texts that make another system start and stop an instance: a module for each system, a pure function in each."""
