"""What the Beam jobs and the trainer agree on: configs, the analyzer, records and the manifest."""
