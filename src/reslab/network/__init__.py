"""Trained networks with everything needed for prediction."""
