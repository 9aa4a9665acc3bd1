"""The Apache Beam jobs of multihot: raw documents to a dataset, and bulk prediction."""
