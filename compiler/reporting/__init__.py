"""What a compile bought, for people: the report as a page, artifacts side by side, a forecast as a picture."""
