"""Recipes as data: their parts, network options, settings, and the shipped recipes."""
