"""Export, prediction, explanation and the development server."""
