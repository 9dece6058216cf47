"""Other people's tools: scikit-learn, trackers, the hub, notebooks."""
