"""What a compile bought, for people: a report, artifacts side by side, a forecast as a picture."""
