"""Bulk prediction: documents and an exported model -> predictions."""
