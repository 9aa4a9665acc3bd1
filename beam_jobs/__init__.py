"""Apache Beam jobs: raw documents to a dataset, and bulk prediction."""
