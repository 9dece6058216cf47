"""What to do, as data: recipes, the networks' options, settings, and the shipped recipes."""
