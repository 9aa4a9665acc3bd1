"""What any of our Beam jobs needs to run: runners, workers, progress, spilled data, accounting."""
