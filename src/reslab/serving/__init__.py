"""The app: a page and an API that say what pictures show, and a dashboard of runs. Needs the extra `reslab[serve]`."""
